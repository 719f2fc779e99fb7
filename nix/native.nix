# nixpkgs on the tools of the machine at hand, where no cache of binaries can be
# reached: enough to run the real buildGoModule on the real sources. What users
# get is built by nixpkgs' own compilers; this proves the expression.
{
  nixpkgs,
  go ? "/usr/local/go",
}:
let
  lib = import (nixpkgs + "/lib");
  tools =
    final: prev:
    let
      link =
        name: programs: more:
        (final.runCommand name { } ''
          mkdir -p $out/bin
          ${lib.concatMapStrings (program: "ln -s ${program} $out/bin/\n") programs}
        '')
        // more;
      bash = link "bash" [ "/bin/bash" "/bin/sh" ] { shellPath = "/bin/bash"; };
    in
    {
      go = link "go" [ "${go}/bin/go" "${go}/bin/gofmt" ] {
        GOOS = "linux";
        GOARCH = prev.stdenv.hostPlatform.go.GOARCH;
        CGO_ENABLED = 1;
        meta.platforms = lib.platforms.linux;
      };
      gitMinimal = link "git" [ "/usr/bin/git" ] { };
      inherit bash;
      bashNonInteractive = bash;
      cacert = final.runCommand "cacert" { } ''
        mkdir -p $out/etc/ssl/certs
        ln -s /etc/ssl/certs/ca-certificates.crt $out/etc/ssl/certs/ca-bundle.crt
      '';
      buildGoModule = final.callPackage (nixpkgs + "/pkgs/build-support/go/module.nix") {
        inherit (final) go;
      };
    };
in
import nixpkgs {
  system = "x86_64-linux";
  overlays = [ tools ];
  # The first two stages: after them nixpkgs would build compilers of its own.
  stdenvStages =
    arguments: lib.take 2 (import (nixpkgs + "/pkgs/stdenv/native") (removeAttrs arguments [ "crossOverlays" ]));
}
