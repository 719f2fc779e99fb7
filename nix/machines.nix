# What every machine that is flashed must have, and must not: on its medium, and
# as a flake describes it afterwards. Both are lists of what is wrong.
{
  lib,
  hardware, # whether there is nixos-hardware
  images, # of one system, by name
  flashed, # images/modules.nix
  nixosSystem,
}:
let
  # The disks behind which a machine may find its system.
  disks = [
    "ahci"
    "nvme"
    "sdhci_pci"
    "uas" # it is built on usb-storage, and brings that along
    "virtio_blk"
    "virtio_pci"
    "virtio_scsi"
  ];
  tools = [
    "testdisk"
    "tcpdump"
    "vim"
    "w3m"
  ];
  unless = right: lib.optional (!right);

  anyDisk =
    config: map (module: "its initrd lacks ${module}") (lib.subtractLists config.boot.initrd.availableKernelModules disks);
  lean =
    config:
    unless (!config.boot.zfs.enabled) "it has ZFS"
    ++ map (tool: "it has ${tool}") (lib.intersectLists tools (map lib.getName config.environment.systemPackages));
  radio = config: unless config.networking.wireless.iwd.enable "it has no Wi-Fi";
  noRadio = config: unless (!config.networking.wireless.iwd.enable) "it has Wi-Fi";
  onlyDeclared = config: unless (!config.users.mutableUsers) "it has users that it does not declare";
  # uncloud.txt lies on the boot volume, with a ticket and a password in it.
  secretive =
    config:
    unless (builtins.elem "umask=0077" config.fileSystems."/boot".options) "everybody may read its EFI volume";
  metadata =
    config:
    unless (lib.hasInfix "accounts_daemon = true" config.environment.etc."default/instance_configs.cfg".text)
      "nobody gets in: the keys of the metadata are not taken";

  judge =
    name: config: rules:
    builtins.trace "machine ${name}" (map (wrong: "${name}: ${wrong}") (lib.concatMap (rule: rule config) rules));

  system = modules: (nixosSystem { inherit modules; }).config;
  # A whole one: evaluated to its derivation.
  whole =
    name: modules: rules:
    let
      config = system modules;
    in
    judge name config rules ++ builtins.seq config.system.build.toplevel.drvPath [ ];
  arm.nixpkgs.hostPlatform = "aarch64-linux";
  amazon = { modulesPath, ... }: { imports = [ "${modulesPath}/virtualisation/amazon-image.nix" ]; };
  google = { modulesPath, ... }: { imports = [ "${modulesPath}/virtualisation/google-compute-image.nix" ]; };

  server = [
    anyDisk
    lean
    noRadio
    onlyDeclared
    secretive
  ];
  board = [
    lean
    radio
    onlyDeclared
  ];
  media = {
    image-raw-efi = server;
    image-qcow2 = server;
    image-iso = [
      anyDisk
      lean
    ];
    image-google-compute = [ metadata ];
    image-raspberry-pi-3 = board;
    image-raspberry-pi-4 = board;
    image-raspberry-pi-5 = board;
  };
in
{
  media = lib.concatLists (
    lib.mapAttrsToList (name: judge name images.${name}.passthru.config) (
      lib.filterAttrs (name: _: images ? ${name} && (hardware || !lib.hasInfix "raspberry" name)) media
    )
  );
  servers =
    whole "vps" [ flashed.vps ] server
    ++ whole "vps for ARM" [ flashed.vps arm ] server
    ++ whole "pc" [ flashed.pc ] [ anyDisk lean radio onlyDeclared secretive ]
    ++ whole "flashed, on Amazon's cloud" [ flashed.flashed amazon ] [ lean noRadio onlyDeclared ]
    ++ whole "flashed, on Google's cloud" [ flashed.flashed google ] [ lean noRadio metadata ];
  boards = lib.concatMap (n: whole "raspberry-pi-${n}" [ flashed."raspberry-pi-${n}" ] board) [
    "3"
    "4"
    "5"
  ];
}
