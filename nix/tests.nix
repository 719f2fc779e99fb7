# The tests that need neither root nor another machine; the others say why they
# are skipped.
{
  lib,
  stdenv,
  buildGoModule,
}:
buildGoModule (
  import ./go.nix { inherit lib stdenv; }
  // {
    pname = "uncloud-tests";
    dontBuild = true;
    checkPhase = ''
      runHook preCheck
      go test -tags "$(tr ' ' , <<< "''${tags[*]}")" ./agent/... ./api/... ./cli/... ./internal/...
      runHook postCheck
    '';
    doCheck = true;
    installPhase = "touch $out";
  }
)
