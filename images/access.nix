# Who gets in: keys from uncloud.txt or the cloud, and no password anywhere.
{ config, lib, ... }:
{
  services.openssh = {
    enable = true;
    settings = {
      PasswordAuthentication = false;
      KbdInteractiveAuthentication = false;
      PermitRootLogin = lib.mkForce "prohibit-password";
    };
  };

  # Nobody has a password, so the console shows and does not let in. A machine
  # whose keys were lost is given new ones by a new uncloud.txt.
  # On Google's cloud the users come with their keys, and its agent adds them.
  users.mutableUsers = config.security.googleOsLogin.enable;
  users.allowNoPasswordLogin = true;
  services.getty.helpLine = lib.mkForce ''
    This machine is \n, at \4 \6
    It takes its name, keys and ticket from uncloud.txt on its boot volume.
  '';
}
