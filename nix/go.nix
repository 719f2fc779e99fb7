# What every derivation that compiles Go here has in common.
{ lib, stdenv }:
{
  version = "0.1.0";
  src = import ./sources.nix { inherit lib; };

  # A file of its own, since ./dev nix vendor-hash rewrites it.
  vendorHash = lib.trim (builtins.readFile ./vendor-hash);

  tags = [
    "remote"
    "containers_image_openpgp"
    "exclude_graphdriver_btrfs"
    "sqlite_omit_load_extension"
    "netgo"
    "osusergo"
  ];
  env.CGO_ENABLED = 1; # SQLite

  # Linked statically, a program runs on any Linux of its architecture. Only
  # Caddy's key stores on PKCS#11 devices would load a library, and none is used.
  buildInputs = lib.optional (stdenv.cc.libc ? static) stdenv.cc.libc.static;
}
