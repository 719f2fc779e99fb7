# The scenarios of tests/nixos, by name: each is a .nix with its nodes, and a .py
# beside it with the script. A new one is found because it is there.
{ lib }:
let
  directory = ../tests/nixos;
  files = lib.optionalAttrs (builtins.pathExists directory) (builtins.readDir directory);
  names = map (lib.removeSuffix ".py") (lib.filter (lib.hasSuffix ".py") (lib.attrNames files));
in
lib.genAttrs names (name: {
  nodes = import (directory + "/${name}.nix");
  script = directory + "/${name}.py";
})
