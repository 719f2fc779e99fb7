# Three virtual machines become a cluster, and then belong to whoever started
# them: their consoles are in the windows, the driver's prompt in the terminal.
{ pkgs, module }:
let
  nodes = pkgs.lib.genAttrs [ "one" "two" "three" ] (_: { });
  scenario = import ./scenario.nix { inherit pkgs module; };
in
(scenario "demo" nodes ./demo.py).driverInteractive.overrideAttrs { meta.mainProgram = "nixos-test-driver"; }
