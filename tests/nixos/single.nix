# One machine that says nothing but services.uncloud.enable = true.
{
  one = { };
}
