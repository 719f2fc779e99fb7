# One scenario on virtual machines: every node has the module, and what it wants.
{ pkgs, module }:
let
  # The program that scenarios deploy, as an image; no registry takes part.
  app = pkgs.buildGoModule {
    pname = "app";
    version = "1";
    src = ../tests/stories/app;
    vendorHash = null;
    env.CGO_ENABLED = 0;
    postPatch = "printf 'module app\\n\\ngo 1.26\\n' > go.mod";
  };
  image = pkgs.dockerTools.buildImage {
    name = "localhost/app";
    tag = "1";
    copyToRoot = pkgs.runCommand "app-root" { } "install -D ${app}/bin/app $out/app";
    config.Entrypoint = [ "/app" ];
  };
in
name: nodes: script:
pkgs.testers.runNixOSTest {
  name = "uncloud-${name}";
  defaults = {
    imports = [ module ];
    services.uncloud.enable = true;
    virtualisation.memorySize = 1024;
    # What scripts look with.
    environment.systemPackages = [
      pkgs.curl
      pkgs.jq
      pkgs.netcat
    ];
    systemd.services.app-image = {
      description = "The image that scenarios deploy";
      wantedBy = [ "multi-user.target" ];
      path = [ pkgs.podman ];
      serviceConfig.Type = "oneshot";
      serviceConfig.RemainAfterExit = true;
      script = "podman image exists localhost/app:1 || podman load --quiet --input ${image}";
    };
  };
  inherit nodes;
  testScript = builtins.readFile script;
}
