# Two machines; power is lost under writes and in the middle of rollouts.
{
  one = { };
  two = { };
}
