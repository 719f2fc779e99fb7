{
  description = "Uncloud: Compose services on any machines, without a control plane";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
    nixos-hardware.url = "github:NixOS/nixos-hardware";
    nixos-hardware.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs =
    {
      self,
      nixpkgs,
      nixos-hardware,
    }:
    let
      inherit (nixpkgs) lib;
      each = lib.genAttrs [
        "x86_64-linux"
        "aarch64-linux"
      ];
      perSystem = f: each (system: f nixpkgs.legacyPackages.${system});
      images = each (
        system:
        import ./images {
          inherit nixpkgs nixos-hardware system;
          module = self.nixosModules.uncloud;
        }
      );
    in
    {
      overlays.default = final: _: { uncloud = final.callPackage ./nix/package.nix { }; };

      nixosModules = {
        default = self.nixosModules.uncloud;
        uncloud =
          { lib, pkgs, ... }:
          {
            imports = [ ./nix/modules ];
            services.uncloud.package = lib.mkDefault (pkgs.callPackage ./nix/package.nix { });
          };
      }
      // import ./images/modules.nix {
        inherit nixos-hardware;
        module = self.nixosModules.uncloud;
      };

      packages = perSystem (
        pkgs:
        let
          uncloud = pkgs.callPackage ./nix/package.nix { };
        in
        {
          inherit uncloud;
          default = uncloud;
        }
        // images.${pkgs.stdenv.hostPlatform.system}
      );

      checks = perSystem (
        pkgs:
        import ./nix/checks.nix {
          inherit pkgs;
          module = self.nixosModules.uncloud;
        }
      );

      apps = perSystem (pkgs: {
        uc = {
          type = "app";
          program = lib.getExe self.packages.${pkgs.stdenv.hostPlatform.system}.uncloud;
          meta.description = "Drive a cluster";
        };
        demo = {
          type = "app";
          program = lib.getExe (
            import ./nix/demo.nix {
              inherit pkgs;
              module = self.nixosModules.uncloud;
            }
          );
          meta.description = "Three virtual machines become a cluster";
        };
      });

      devShells = perSystem (pkgs: {
        default = import ./nix/shell.nix { inherit pkgs; };
      });

      formatter = perSystem (pkgs: pkgs.nixfmt-tree);

      templates = {
        default = self.templates.machine;
        machine.path = ./examples/machines/one;
        machine.description = "One NixOS machine that is a member of a cluster";
        flashed.path = ./examples/machines/flashed;
        flashed.description = "Machines that were flashed with an image, to upgrade them from a flake";
        fleet.path = ./examples/machines/fleet;
        fleet.description = "A few machines of one cluster, with a project declared for them";
      };
    };
}
