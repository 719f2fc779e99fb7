# The card itself: what is on it beside the machine.
{ board }:
{
  image.baseName = "uncloud-${board}";
  sdImage.expandOnBoot = true;
  sdImage.firmwareSize = 128;
}
