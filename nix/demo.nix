# The scenario `demo`, for whoever starts it: the consoles of its machines are in
# the windows, the driver's prompt in the terminal.
{ pkgs, module }:
let
  inherit (import ./scenarios.nix { inherit (pkgs) lib; }) demo;
  scenario = import ./scenario.nix { inherit pkgs module; };
in
(scenario "demo" demo.nodes demo.script).driverInteractive.overrideAttrs { meta.mainProgram = "nixos-test-driver"; }
