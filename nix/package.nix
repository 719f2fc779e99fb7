{
  lib,
  stdenv,
  buildGoModule,
  installShellFiles,
}:
let
  go = import ./go.nix { inherit lib stdenv; };
  runs = stdenv.buildPlatform.canExecute stdenv.hostPlatform;
in
buildGoModule (
  go
  // {
    pname = "uncloud";

    subPackages = [
      "agent/cmd/uncloudd"
      "cli/cmd/uc"
    ];
    ldflags = [
      "-s"
      "-w"
      "-X uncloud/internal/build.Number=${go.version}"
      "-linkmode=external"
      "-extldflags=-static"
    ];

    doCheck = false; # nix/tests.nix, so that a failing test and a failing build are two things

    nativeBuildInputs = [ installShellFiles ];
    postInstall = ''
      install -Dm444 packaging/*.{service,path} -t $out/lib/systemd/system
      install -Dm555 packaging/uncloud-names -t $out/libexec/uncloud
      sed -i "s|=/usr/|=$out/|" $out/lib/systemd/system/*.service
      install -Dm444 packaging/sysctl.conf $out/lib/sysctl.d/60-uncloud.conf
      install -Dm444 packaging/sysusers.conf $out/lib/sysusers.d/uncloud.conf
    ''
    + lib.optionalString runs ''
      for program in uc uncloudd; do
        for shell in bash fish zsh; do
          $out/bin/$program completion $shell > $program.$shell
        done
        installShellCompletion --cmd $program --bash $program.bash --fish $program.fish --zsh $program.zsh
      done
    '';

    doInstallCheck = runs;
    installCheckPhase = ''
      $out/bin/uncloudd version | grep -F ${go.version}
      $out/bin/uc version | grep -F ${go.version}
    '';

    meta = {
      description = "Compose services on any machines, without a control plane";
      license = lib.licenses.asl20;
      platforms = lib.platforms.linux;
      mainProgram = "uc";
    };
  }
)
