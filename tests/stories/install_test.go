package stories

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"uncloud/tests/lab"
)

// bare takes from a machine all that a lab gives it of the product, but for the
// programs, which go to where a clone has them.
const bare = `
set -eu
systemctl stop uncloud uncloud-names uncloud-host.path
mkdir -p /root/clone/bin
for program in uc uncloudd; do
	cp -L /usr/bin/$program /root/clone/bin/
	rm /usr/bin/$program
done
rm -rf /etc/systemd/system/uncloud* /etc/systemd/system/*.wants/uncloud* /usr/lib/systemd/system/uncloud* /usr/libexec/uncloud
systemctl daemon-reload
`

// A Linux that is given the package has names of services at once, and what an
// upgrade of the package brings runs at once.
func TestWhatTheInstallerPlacesRunsAtOnce(t *testing.T) {
	c, ctx := alone(t, 1), t.Context()
	debian, err := c.Add(ctx)
	try(t, err)
	must(t, debian, "sh", "-c", bare)
	packaging, err := filepath.Glob(filepath.Join(lab.Repository(), "packaging/*"))
	try(t, err)
	for _, file := range packaging {
		content, err := os.ReadFile(file)
		try(t, err)
		try(t, debian.WriteFile(ctx, "/root/clone/packaging/"+filepath.Base(file), string(content)))
	}
	units := []string{"podman.socket", "uncloud.service", "uncloud-names.service"}
	runs := func() (began string) {
		t.Helper()
		must(t, debian, "sh", "/root/clone/packaging/install.sh")
		for _, unit := range units {
			if r, err := debian.Exec(ctx, "systemctl", "is-active", unit); err != nil || r.Code != 0 {
				t.Errorf("%s is %s %v", unit, strings.TrimSpace(r.Stdout), err)
			}
			if r, err := debian.Exec(ctx, "systemctl", "is-enabled", unit); err != nil || r.Code != 0 {
				t.Errorf("%s is %s %v", unit, strings.TrimSpace(r.Stdout), err)
			}
		}
		return must(t, debian, "systemctl", "show", "--property=InvocationID", "uncloud.service", "uncloud-names.service")
	}
	first := runs()

	ticket, err := c.M(1).Ticket(ctx)
	try(t, err)
	try(t, debian.Join(ctx, ticket))
	try(t, c.Image(ctx, filepath.Join(lab.Repository(), "tests/stories/app"), image, debian))
	w := web{project: project(t), version: "one"}
	c.deployed(c.M(1), w)
	eventually(t, long, "the new machine asks a service by its name", func(ctx context.Context) error {
		body, err := debian.Output(ctx, "curl", "-sS", "-m", "3", "http://web."+w.project+".internal:8080/")
		if err == nil && !strings.HasPrefix(body, "one ") {
			err = fmt.Errorf("%q", body)
		}
		return err
	})

	second := runs()
	for i, line := range strings.Fields(first) {
		if then := strings.Fields(second); i >= len(then) || then[i] == line {
			t.Errorf("after an upgrade of the package the same runs:\n%s\nbefore\n%s", second, first)
		}
	}
}
