# Three machines, one of which is cut off for a while.
{
  one = { };
  two = { };
  three = { };
}
