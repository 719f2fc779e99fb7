# What `nix flake check` builds. Scenarios are found by listing tests/nixos: a
# .nix with the nodes, and beside it a .py with the script.
{ pkgs, module }:
let
  inherit (pkgs) lib;
  directory = ../tests/nixos;
  files = lib.optionalAttrs (builtins.pathExists directory) (builtins.readDir directory);
  scenarios = map (lib.removeSuffix ".py") (lib.filter (lib.hasSuffix ".py") (lib.attrNames files));
  scenario = import ./scenario.nix { inherit pkgs module; };
in
{
  package = pkgs.callPackage ./package.nix { };
  tests = pkgs.callPackage ./tests.nix { };
  lint = pkgs.callPackage ./lint.nix { };
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
// lib.genAttrs' scenarios (
  name: lib.nameValuePair "vm-${name}" (scenario name (import (directory + "/${name}.nix")) (directory + "/${name}.py"))
)
