# The tests that need neither root nor another machine; the others say why they
# are skipped.
{
  lib,
  stdenv,
  buildGoModule,
}:
let
  go = import ./go.nix { inherit lib stdenv; };
in
buildGoModule (
  go
  // {
    pname = "uncloud-tests";
    src = import ./sources.nix {
      inherit lib;
      documents = true;
    };
    dontBuild = true;
    doCheck = true;
    checkPhase = ''
      runHook preCheck
      go test -tags=${lib.concatStringsSep "," go.tags} ./agent/... ./api/... ./cli/... ./internal/...
      runHook postCheck
    '';
    installPhase = "touch $out";
  }
)
