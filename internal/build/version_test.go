package build

import (
	"errors"
	"io/fs"
	"os"
	"regexp"
	"testing"
)

// A build without Nix is on its way to the release that Nix would build.
func TestTheNumberIsThatOfThePackage(t *testing.T) {
	text, err := os.ReadFile("../../nix/go.nix")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the source is here without its folder nix")
	}
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`\bversion = "([^"]+)";`).FindSubmatch(text)
	if version == nil || Number != string(version[1])+"-dev" {
		t.Errorf("this is %s, and nix/go.nix has %q", Number, version)
	}
}

// Both programs are linked with this name, which the compiler does not check.
func TestThePackageSetsTheNumber(t *testing.T) {
	text, err := os.ReadFile("../../nix/package.nix")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the source is here without its folder nix")
	}
	if err != nil {
		t.Fatal(err)
	}
	set := regexp.MustCompile(`-X ([^=]+)=`).FindAllSubmatch(text, -1)
	if len(set) != 1 || string(set[0][1]) != "uncloud/internal/build.Number" {
		t.Errorf("nix/package.nix sets %q", set)
	}
}
