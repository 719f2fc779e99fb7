# What `nix flake check` builds.
{ pkgs, module }:
let
  inherit (pkgs) lib;
  scenario = import ./scenario.nix { inherit pkgs module; };
in
{
  package = pkgs.callPackage ./package.nix { };
  tests = pkgs.callPackage ./tests.nix { };
  lint = pkgs.callPackage ./lint.nix { };
}
# What is the same on every system is checked on one.
// lib.optionalAttrs (pkgs.stdenv.hostPlatform.system == "x86_64-linux") {
  options = pkgs.runCommand "options-reference" { } ''
    diff -u ${../docs/options.md} ${
      pkgs.writeText "options.md" (import ./options.nix { inherit pkgs module; })
    } || { echo "run ./dev nix golden"; exit 1; }
    touch $out
  '';
  refusals =
    let
      wrong = import ./refusals.nix { inherit pkgs module; };
    in
    pkgs.runCommand "refusals" { wrong = lib.concatLines wrong; } ''
      [ -z "$wrong" ] || { echo "$wrong"; exit 1; }
      touch $out
    '';
}
// lib.mapAttrs' (name: it: lib.nameValuePair "vm-${name}" (scenario name it.nodes it.script)) (
  import ./scenarios.nix { inherit lib; }
)
