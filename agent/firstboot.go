package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"uncloud/agent/internal/firstboot"
	"uncloud/agent/internal/join"
)

// firstBootPatience is for how long a machine that was never told anything
// waits for a stick to appear. Every boot of a machine that nobody ever tells
// anything takes that much longer, and a slow stick needs about 3 s.
const firstBootPatience = 5 * time.Second

// FirstBoot reads uncloud.txt from the first of the volumes that has one, and
// applies what is in the directory. A volume is a label, or a folder by its
// path. It has no error: what goes wrong is told to out, a sentence a line,
// and the machine boots on.
func FirstBoot(ctx context.Context, directory string, volumes []string, cfg Config, out io.Writer) {
	system := firstboot.System{SetHostname: func(name string) error { return unix.Sethostname([]byte(name)) }, SetCountry: setCountry}
	firstboot.Run(ctx, firstboot.Options{
		Directory: directory, Volumes: volumes, Mount: firstboot.MountVolume, Patience: firstBootPatience,
		Credentials: os.Getenv("CREDENTIALS_DIRECTORY"),
		Member: func() (bool, error) {
			_, known, err := loadIdentity(cfg.StateDir)
			return known, err
		},
		Checks: firstboot.Checks{Ticket: func(text string) error { _, err := join.Parse(text); return err }, Zone: system.HasZone},
		Disk:   firstboot.OS{}, System: system,
		Say: func(sentence string) { fmt.Fprintln(out, "uncloud:", sentence) },
	})
}

// setCountry tells the kernel whose rules of the air hold. A machine without
// Wi-Fi has nobody to tell.
func setCountry(ctx context.Context, country string) error {
	if _, err := os.Stat("/sys/module/cfg80211"); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	said, err := exec.CommandContext(ctx, "iw", "reg", "set", country).CombinedOutput() //nolint:gosec // two letters
	if text := strings.TrimSpace(string(said)); err != nil && text != "" {
		return fmt.Errorf("iw: %s", text)
	}
	return err
}

// firstBootTroubles are what the last boot could not do with uncloud.txt.
func firstBootTroubles(directory string) []string {
	text, err := os.ReadFile(filepath.Join(directory, firstboot.TroublesFile))
	if err != nil {
		return nil // none, or none that anybody could read
	}
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}
