package connect

import (
	"os"
	"path/filepath"

	"uncloud/internal/faults"
)

// Choice is what decides where a command goes. The first that is set wins:
// Connect, Context, ComposeContext, the current context of the file, the
// default socket.
type Choice struct {
	Connect        string // --connect or UNCLOUD_CONNECT
	Context        string // --context or UNCLOUD_CONTEXT
	ComposeContext string // x-context of the Compose file
	ConfigPath     string // --config or UNCLOUD_CONFIG; empty is DefaultConfigPath
}

// DefaultConfigPath is ~/.config/uncloud/config.yaml, or its place under
// XDG_CONFIG_HOME.
func DefaultConfigPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", faults.New(faults.Invalid, "find the configuration directory: %w", err).WithHint("set HOME, or name the file with --config")
	}
	return filepath.Join(dir, "uncloud", "config.yaml"), nil
}

// Path is the file of contexts that the choice refers to.
func (c Choice) Path() (string, error) {
	if c.ConfigPath != "" {
		return c.ConfigPath, nil
	}
	return DefaultConfigPath()
}

// Targets are the ways to reach a machine that follow from the choice, in the
// order they are to be tried.
func (c Choice) Targets() ([]Target, error) {
	if c.Connect != "" {
		t, err := ParseTarget(c.Connect)
		return []Target{t}, err
	}
	config, err := c.config()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{c.Context, c.ComposeContext, config.CurrentContext} {
		if name != "" {
			return config.Targets(name)
		}
	}
	return []Target{{Socket: DefaultSocket}}, nil
}

// config is empty where there is no home directory to look in and no file was
// named: services and units run without one, and need the socket only.
func (c Choice) config() (*Config, error) {
	path, err := c.Path()
	if err != nil {
		return &Config{}, nil
	}
	return LoadConfig(path)
}
