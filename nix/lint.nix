{
  lib,
  stdenv,
  buildGoModule,
  golangci-lint,
}:
let
  go = import ./go.nix { inherit lib stdenv; };
in
buildGoModule (
  go
  // {
    pname = "uncloud-lint";
    nativeBuildInputs = [ golangci-lint ];
    buildPhase = ''
      runHook preBuild
      test -z "$(gofmt -l agent api cli internal tests | tee /dev/stderr)"
      HOME=$TMPDIR golangci-lint run --config ${../.golangci.yml} --build-tags ${lib.concatStringsSep "," go.tags} ./...
      runHook postBuild
    '';
    doCheck = false;
    installPhase = "touch $out";
  }
)
