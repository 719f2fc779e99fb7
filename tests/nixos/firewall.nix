# Two machines behind a firewall of nftables, which a switch of the generation
# loads anew; three is outside: no member.
{
  one.networking.nftables.enable = true;
  two.networking.nftables.enable = true;
  three.networking.nftables.enable = true;
}
