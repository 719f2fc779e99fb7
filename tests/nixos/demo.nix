# Three machines to play with: they become a cluster, and whoever started them
# has a prompt. `nix run .#demo`, or ./dev vm demo --keep.
{
  one = { };
  two = { };
  three = { };
}
