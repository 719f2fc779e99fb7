# A flashed machine is told who it is by one file on a volume that any computer
# can write: `uncloud.txt`, or a bare ticket. The agent's binary reads it; the
# formats and the order of its steps are in docs/first-boot.md.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.uncloud;
  inherit (cfg) firstBoot;
  inherit (lib) mkOption types;
in
{
  options.services.uncloud.firstBoot = {
    enable = lib.mkEnableOption "reading {file}`uncloud.txt` at boot. Images have it on";
    volumes = mkOption {
      type = types.listOf types.str;
      default = [
        "FIRMWARE"
        "ESP"
        "UNCLOUD"
      ];
      description = ''
        Labels of the volumes on which the file is looked for, in this order. A
        path is a folder that is there already.
      '';
    };
    directory = mkOption {
      type = types.path;
      default = "/var/lib/uncloud-first-boot";
      readOnly = true;
      description = "Where what was read is kept for the boots to come.";
    };
  };

  config = lib.mkIf (cfg.enable && firstBoot.enable) {
    systemd.services.uncloud-first-boot = {
      description = "Read uncloud.txt";
      wantedBy = [ "sysinit.target" ];
      # Before there is a network, so that name, Wi-Fi and address are right at once.
      unitConfig.DefaultDependencies = false;
      after = [
        "local-fs.target"
        "systemd-tmpfiles-setup.service"
        # What enlarges the root of a fresh image has the kernel read the partitions
        # again, and that is no moment to write to one. Most machines have none of these.
        "expand-root-partition.service"
        "growpart.service"
        "systemd-repart.service"
        "systemd-growfs-root.service"
      ];
      before = [
        "sysinit.target"
        "network-pre.target"
        "systemd-networkd.service"
        "iwd.service"
        "sshd.service"
        "uncloud.service"
      ];
      wants = [ "network-pre.target" ];
      # It tells the kernel the country of the Wi-Fi.
      path = [ pkgs.iw ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        # A card that answers no more must not hold up the boot for ever.
        TimeoutStartSec = "2min";
        ExecStart = lib.escapeShellArgs (
          [
            (lib.getExe' cfg.package "uncloudd")
            "first-boot"
            "--directory"
            firstBoot.directory
          ]
          ++ lib.concatMap (label: [
            "--volume"
            label
          ]) firstBoot.volumes
        );
        ImportCredential = "uncloud.txt";

        # It mounts volumes and names the machine (SYS_ADMIN, and the calls), tells the
        # Wi-Fi its country (NET_ADMIN, by netlink), and reads a stick whose files are
        # somebody else's (DAC_OVERRIDE). Nothing here gives it mounts of its own, as
        # ProtectSystem and its like would: the boot volume that it makes writable, and
        # read-only again, is the machine's; and it mounts devices (no PrivateDevices).
        CapabilityBoundingSet = [
          "CAP_SYS_ADMIN"
          "CAP_NET_ADMIN"
          "CAP_DAC_OVERRIDE"
        ];
        NoNewPrivileges = true;
        RestrictAddressFamilies = [
          "AF_UNIX"
          "AF_NETLINK"
        ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        SystemCallArchitectures = "native";
        SystemCallFilter = [
          "@system-service"
          "@mount"
          "sethostname"
        ];
        SystemCallErrorNumber = "EPERM";

        # Named, root has a home, which libraries complain to the console about.
        User = "root";
        # What is refused is for whoever stands before the machine.
        StandardOutput = "journal+console";
        StandardError = "journal+console";
      };
    };

    # A name of the generation would overrule the one that was read.
    networking.hostName = lib.mkOverride 1400 ""; # weaker than a default of somebody else
    services.openssh.authorizedKeysFiles = [ "${firstBoot.directory}/authorized_keys" ];
  };
}
