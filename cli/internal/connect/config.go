package connect

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"uncloud/internal/atomicfile"
	"uncloud/internal/faults"
)

// Config is the content of config.yaml: named clusters, and how to reach each.
type Config struct {
	CurrentContext string             `yaml:"current_context,omitempty"`
	Contexts       map[string]Context `yaml:"contexts"`
}

// Context is one cluster. Its connections are tried in order until one answers.
type Context struct {
	Connections []Connection `yaml:"connections"`
}

// Connection is one way to reach a machine of the cluster: exactly one of SSH
// and Unix is set.
type Connection struct {
	SSH        string `yaml:"ssh,omitempty"`          // [user@]host[:port]
	SSHKeyFile string `yaml:"ssh_key_file,omitempty"` // ~ is the home directory
	Unix       string `yaml:"unix,omitempty"`         // absolute path of a socket
}

// LoadConfig reads the file at path. A file that is not there is an empty Config.
func LoadConfig(path string) (*Config, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &Config{}, nil
	}
	if err != nil {
		return nil, faults.New(faults.Invalid, "read contexts: %w", err).WithHint("name another file: uc --config FILE; or go without: uc --connect ssh://user@machine")
	}
	c := new(Config)
	decoder := yaml.NewDecoder(bytes.NewReader(b))
	decoder.KnownFields(true)
	if err := decoder.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, faults.New(faults.Invalid, "%s: %s", path, yamlReason(err)).
			WithHint("a context has a list of connections, each with ssh or unix and its address")
	}
	return c, nil
}

func yamlReason(err error) string {
	if t, ok := errors.AsType[*yaml.TypeError](err); ok {
		return strings.Join(t.Errors, "; ")
	}
	return strings.TrimPrefix(err.Error(), "yaml: ")
}

// Save replaces the file at path as a whole, so that a crash leaves the old
// content or the new one.
func (c *Config) Save(path string) error {
	b, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode contexts: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("save contexts: %w", err)
	}
	if err := atomicfile.Replace(path, b, 0o600); err != nil {
		return fmt.Errorf("save contexts: %w", err)
	}
	return nil
}

// Names are the contexts in alphabetical order.
func (c *Config) Names() []string { return slices.Sorted(maps.Keys(c.Contexts)) }

// Targets are the connections of a context in the order they are tried.
func (c *Config) Targets(name string) ([]Target, error) {
	found, ok := c.Contexts[name]
	if !ok {
		return nil, c.unknown(name)
	}
	if len(found.Connections) == 0 {
		return nil, faults.New(faults.Invalid, "context %s has no connections", name).
			WithHint("uc ctx add %s ssh://user@host", name)
	}
	var targets []Target
	for i, connection := range found.Connections {
		t, err := connection.Target()
		if err != nil {
			return nil, fmt.Errorf("context %s, connection %d: %w", name, i+1, err)
		}
		targets = append(targets, t)
	}
	return targets, nil
}

func (c *Config) unknown(name string) error {
	hint := fmt.Sprintf("uc ctx add %s ssh://user@host", name)
	if len(c.Contexts) > 0 {
		hint = "there are: " + strings.Join(c.Names(), ", ")
	}
	return faults.New(faults.NotFound, "there is no context %s", name).WithHint("%s", hint)
}

// Target is the connection as something that can be dialled.
func (c Connection) Target() (Target, error) {
	if (c.SSH == "") == (c.Unix == "") {
		return Target{}, faults.New(faults.Invalid, "a connection needs exactly one of ssh and unix").
			WithHint("write it anew: uc ctx add NAME ssh://user@host")
	}
	if c.Unix != "" {
		return unixTarget(c.Unix)
	}
	t, err := ParseTarget("ssh://" + strings.TrimPrefix(c.SSH, "ssh://"))
	t.KeyFile = expandHome(c.SSHKeyFile)
	return t, err
}

// ConnectionTo is the form of a target that a context keeps.
func ConnectionTo(t Target) Connection {
	if t.Socket != "" {
		return Connection{Unix: t.Socket}
	}
	return Connection{SSH: t.address(), SSHKeyFile: t.KeyFile}
}

func expandHome(path string) string {
	rest, ok := strings.CutPrefix(path, "~/")
	if !ok {
		return path
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return path // ssh says what is wrong with it
	}
	return filepath.Join(home, rest)
}
