# The scenarios, found by listing tests/nixos: a .nix with the nodes, and beside
# it a .py with the script.
{ lib }:
let
  directory = ../tests/nixos;
  names = map (lib.removeSuffix ".py") (
    lib.filter (lib.hasSuffix ".py") (lib.attrNames (builtins.readDir directory))
  );
in
lib.genAttrs names (name: {
  nodes = import (directory + "/${name}.nix");
  script = directory + "/${name}.py";
})
