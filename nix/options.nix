# The option reference, as text: rendered while evaluating, so that keeping it
# fresh needs no build.
{ pkgs, module }:
let
  inherit (pkgs) lib;
  system = lib.evalModules {
    modules = [
      module
      {
        options = lib.genAttrs [ "assertions" "boot" "environment" "networking" "systemd" "users" "virtualisation" "warnings" ] (
          _: lib.mkOption { type = lib.types.raw; visible = false; }
        );
        config._module.args.pkgs = pkgs;
        config._module.check = false;
      }
    ];
  };
  options = lib.filter (o: o.visible && !o.internal && lib.hasPrefix "services.uncloud" o.name) (
    lib.optionAttrSetToDocList { inherit (system.options.services) uncloud; }
  );

  # Roles of NixOS's Markdown, as a reader of the bare file expects them.
  plain = lib.replaceStrings [ "{option}`" "{file}`" "{command}`" "{manpage}`" ] [ "`" "`" "`" "`" ];
  code =
    value: if lib.hasInfix "\n" value.text then "\n\n```nix\n${value.text}\n```" else " `${value.text}`";
  line = name: value: lib.optionalString (value != null) "\n\n${name}:${code value}";
  text = o: ''

    ## ${o.name}

    ${lib.trim (plain o.description)}

    Type: ${o.type}${line "Default" (o.default or null)}${line "Example" (o.example or null)}
  '';
in
''
  # Options of the NixOS module

  Generated from nix/modules by `./dev nix golden`.
''
+ lib.concatMapStrings text options
