# Arithmetic of IPv4 networks, for assertions.
{ lib }:
let
  pow2 = n: if n == 0 then 1 else 2 * pow2 (n - 1);
  number = address: lib.foldl' (sum: part: sum * 256 + lib.toIntBase10 part) 0 (lib.splitString "." address);
  parse =
    cidr:
    let
      parts = lib.splitString "/" cidr;
      size = pow2 (32 - lib.toIntBase10 (lib.last parts));
      address = number (lib.head parts);
    in
    {
      first = address / size * size;
      last = address / size * size + size - 1;
    };
in
{
  overlap =
    left: right:
    let
      l = parse left;
      r = parse right;
    in
    l.first <= r.last && r.first <= l.last;
}
