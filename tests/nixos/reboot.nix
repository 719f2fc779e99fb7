# Two machines, one of which is rebooted, and restarted in every other way.
{
  one = { };
  two = { };
}
