# Arithmetic of IPv4 networks such as "10.210.0.0/16", for assertions.
{ lib }:
let
  pow2 = n: if n == 0 then 1 else 2 * pow2 (n - 1);
  parts = cidr: lib.splitString "/" cidr;
  octets = cidr: map lib.toIntBase10 (lib.splitString "." (lib.head (parts cidr)));
  bits = cidr: lib.toIntBase10 (lib.last (parts cidr));
  range =
    cidr:
    let
      size = pow2 (32 - bits cidr);
      address = lib.foldl' (sum: octet: sum * 256 + octet) 0 (octets cidr);
    in
    {
      first = address / size * size;
      last = address / size * size + size - 1;
    };
in
{
  inherit bits;

  valid = cidr: bits cidr <= 32 && lib.length (octets cidr) == 4 && lib.all (octet: octet < 256) (octets cidr);

  # Only of valid ones.
  overlap =
    left: right:
    let
      l = range left;
      r = range right;
    in
    l.first <= r.last && r.first <= l.last;
}
