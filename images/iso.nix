# A live system with a shell and an installer. It is no machine of a cluster
# itself: what it would be is gone when it is switched off.
{ installed }:
{
  lib,
  pkgs,
  config,
  ...
}:
let
  installer = pkgs.writeShellApplication {
    name = "uncloud-install";
    runtimeInputs = with pkgs; [
      config.system.build.nixos-install
      dosfstools
      e2fsprogs
      util-linux
    ];
    runtimeEnv.SYSTEM = "${installed}";
    text = builtins.readFile ./install.sh;
  };
in
{
  image.baseName = lib.mkForce "uncloud-${pkgs.stdenv.hostPlatform.system}";
  isoImage = {
    edition = "uncloud";
    makeEfiBootable = true;
    makeUsbBootable = true;
    storeContents = [ installed ];
  };
  hardware.enableAllHardware = true;
  environment.systemPackages = [ installer ];

  systemd.services.uncloud.wantedBy = lib.mkForce [ ];
  services.uncloud.firstBoot.enable = lib.mkForce false;

  # Whoever sits before the machine owns it anyway.
  services.getty.autologinUser = lib.mkForce "root";
  programs.bash.loginShellInit = ''
    if [ "$(tty)" = /dev/tty1 ]; then uncloud-install || true; fi
  '';
}
