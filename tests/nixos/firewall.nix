# Two machines behind a firewall of nftables, which a switch of the generation
# loads anew, and which judges what is forwarded; three is outside: no member.
let
  member = {
    networking.nftables.enable = true;
    networking.firewall.filterForward = true;
  };
in
{
  one = member;
  two = member;
  three.networking.nftables.enable = true;
}
