package lab

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const suite = "trixie"

// packages of a machine: what a small Debian server has, what the product
// needs, and a few tools for looking. iproute2 is version 6 there, nft is 1.1.
const packages = "systemd,systemd-sysv,dbus,kmod,procps,mount,util-linux," +
	"podman,netavark,crun,conmon,nftables,iproute2,wireguard-tools,ca-certificates," +
	"openssh-server,openssh-client,iputils-ping,curl,jq"

//go:embed tree.sh
var treeScript string

// ensureTree gives the directory of the root tree that all machines share, and
// builds it the first time. Its name follows from all that went into it.
func ensureTree(ctx context.Context, log *slog.Logger) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	rootfs := os.Getenv(envRootfs)
	sum := sha256.Sum256([]byte(strings.Join([]string{suite, packages, treeScript, rootfs}, "\x00")))
	tree := filepath.Join(cache, "tree-"+hex.EncodeToString(sum[:6]))
	if _, err := os.Stat(tree); err == nil {
		return tree, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(tree + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(tree); err == nil {
		return tree, nil // another lab has built it meanwhile
	}
	return tree, buildTree(ctx, log, tree, rootfs)
}

// buildTree makes the tree beside its place and moves it there when it is
// whole, so that a build that was killed is never used.
func buildTree(ctx context.Context, log *slog.Logger, tree, rootfs string) error {
	began := time.Now()
	part := tree + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	unpack := bootstrap
	if rootfs != "" {
		unpack = func(ctx context.Context, _ *slog.Logger, dir string) error {
			return errors.Join(os.Mkdir(dir, 0o755), command(ctx, "", "tar", "-xpf", rootfs, "-C", dir, "--numeric-owner"))
		}
	}
	if err := unpack(ctx, log, part); err != nil {
		return errors.Join(err, os.RemoveAll(part))
	}
	if err := command(ctx, "", "sh", "-c", treeScript, "tree", part); err != nil {
		return errors.Join(err, os.RemoveAll(part))
	}
	log.Info("root tree of the machines is built, and cached for all labs", "took", time.Since(began).Round(time.Second))
	return os.Rename(part, tree)
}

func bootstrap(ctx context.Context, log *slog.Logger, dir string) error {
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return errors.New("the program mmdebstrap is missing (./dev installs it on Debian and Ubuntu)")
	}
	log.Info("building the root tree of the machines: about a minute, once")
	args := []string{
		"--mode=root", "--variant=minbase", "--format=directory",
		"--include=" + packages,
		"--aptopt=Apt::Install-Recommends false", "--aptopt=Acquire::Languages none",
		"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
	}
	args = append(args, suite, dir)
	if uri := mirror(ctx); uri != "" {
		args = append(args, "deb "+uri+" "+suite+" main")
	}
	return command(ctx, "", "mmdebstrap", args...)
}

// mirror is where packages come from: on Debian the mirror of the host itself,
// which is near, or the only one that it can reach. Elsewhere it is empty, and
// mmdebstrap takes its own.
func mirror(ctx context.Context) string {
	if uri := os.Getenv(envMirror); uri != "" {
		return uri
	}
	out, _ := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI)",
		"Created-By: Packages", "Origin: Debian", "Label: Debian").Output()
	if uri, _, ok := strings.Cut(string(out), "\n"); ok {
		return strings.TrimSuffix(uri, "/")
	}
	return ""
}
