# One scenario on virtual machines: every node has the module, and what it wants.
{ pkgs, module }:
name: nodes: script:
pkgs.testers.runNixOSTest {
  name = "uncloud-${name}";
  defaults = {
    imports = [ module ];
    services.uncloud.enable = true;
    virtualisation.memorySize = 1024;
  };
  inherit nodes;
  testScript = builtins.readFile script;
}
