package compose

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/consts"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/paths"
	"github.com/compose-spec/compose-go/v2/types"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// Options say what to load.
type Options struct {
	// Files are Compose files, later ones override earlier ones. Empty means
	// COMPOSE_FILE, or else compose.yaml (and its override file) in WorkingDir
	// or the nearest folder above it.
	Files []string
	// ProjectName beats COMPOSE_PROJECT_NAME, the files' name and the folder's.
	ProjectName string
	// WorkingDir is where the search for files starts and what their relative
	// paths are relative to. Empty means the folder of the first file, or the
	// process's own where no file is named.
	WorkingDir string
	// Env is the environment for interpolation; it beats the .env file. The
	// process's own environment is not looked at.
	Env map[string]string
	// Profiles are active in addition to those in COMPOSE_PROFILES.
	Profiles []string
	// Services limits the load to these and what they depend on.
	Services []string
}

// Project is what the files ask for.
type Project struct {
	Name       string
	WorkingDir string             // absolute
	Files      []string           // absolute, in the order they were merged
	Specs      []spec.ServiceSpec // dependencies first, then by name
	Images     []string           // of the specs, sorted, each once
	Builds     []Build            // of services that have both build and image
	Context    string             // x-context: the context that the files are meant for
	Warnings   []string           // sentences: what was read as blank or left unset
}

// Load reads, merges and converts. Errors that the user can mend are
// faults.Invalid with file and line; where there are several, all are joined.
func Load(ctx context.Context, opt Options) (*Project, error) {
	in, err := locate(opt)
	if err != nil {
		return nil, err
	}
	tree, err := loader.LoadModelWithContext(ctx, in.details, in.modelOptions)
	if err != nil {
		return nil, in.sources.explain(err)
	}
	name, err := in.projectName(opt)
	if err != nil {
		return nil, err
	}
	c := &converter{
		sources: in.sources, tree: tree,
		project: &Project{Name: name, WorkingDir: in.details.WorkingDir, Files: in.files},
	}
	c.walk(tree)
	if err := c.bind(in, name); err != nil {
		// What the walk refused is often why the rest did not fit.
		return nil, errors.Join(append(c.refusals(), in.sources.explain(err))...)
	}
	c.convert()
	c.project.Warnings = append(c.project.Warnings, in.blanks()...)
	if found := c.refusals(); len(found) > 0 {
		return nil, errors.Join(found...)
	}
	if len(c.project.Specs) == 0 {
		return nil, in.nothing()
	}
	return c.project, nil
}

// nothing is why there is no service. A project without services is a slip:
// to remove what runs there is a command of its own.
func (in *input) nothing() error {
	if in.sources.where([]string{"services"}).line == 0 {
		return faults.New(faults.Invalid, "%s has no services", in.sources.show(in.files[0])).
			WithHint("write what should run under services:, as in docs/compose.md; to remove what runs: uc rm SERVICE")
	}
	return faults.New(faults.Invalid, "no service of %s is enabled: all of them have profiles", in.sources.show(in.files[0])).
		WithHint("enable some: uc deploy --profile NAME")
}

// input is what was found before anything was parsed.
type input struct {
	files    []string
	details  types.ConfigDetails
	options  *cli.ProjectOptions
	profiles []string
	services []string
	sources  *sources
	unset    map[string]bool // variables that interpolation read as blank
}

// locate finds the files and the environment.
func locate(opt Options) (*input, error) {
	steps := []cli.ProjectOptionsFn{
		cli.WithWorkingDirectory(opt.WorkingDir),
		func(o *cli.ProjectOptions) error { maps.Copy(o.Environment, opt.Env); return nil },
		cli.WithConfigFileEnv,
		cli.WithDefaultConfigPath,
	}
	if off, _ := strconv.ParseBool(opt.Env[consts.ComposeDisableDefaultEnvFile]); !off {
		steps = append(steps, withDotEnv)
	}
	o, err := cli.NewProjectOptions(slices.Clone(opt.Files), steps...)
	if err != nil {
		return nil, faults.New(faults.Invalid, "%w", err).WithHint("look at COMPOSE_FILE and at the .env file beside the Compose file")
	}
	if len(o.ConfigPaths) == 0 {
		return nil, faults.New(faults.NotFound, "there is no compose.yaml here or in a folder above").
			WithHint("name one: uc deploy -f FILE")
	}
	dir, err := o.GetWorkingDir()
	if err != nil {
		return nil, faults.New(faults.Invalid, "find the working directory: %w", err).WithHint("change to a folder that exists, or name the file: uc deploy -f FILE")
	}
	in := &input{
		options: o, services: opt.Services, unset: map[string]bool{},
		profiles: slices.Concat(opt.Profiles, splitList(o.Environment[consts.ComposeProfiles])),
		details:  types.ConfigDetails{WorkingDir: dir, Environment: o.Environment},
	}
	return in, in.read()
}

// withDotEnv reads the .env file beside the files, if there is one.
func withDotEnv(o *cli.ProjectOptions) error {
	dir, err := o.GetWorkingDir()
	if err != nil {
		return err
	}
	file := filepath.Join(dir, ".env")
	if info, err := os.Stat(file); err != nil || info.IsDir() {
		return nil // the file is a convenience: absence is the usual case
	}
	o.EnvFiles = []string{file}
	return cli.WithDotEnv(o)
}

// read loads the files' bytes once, for the parser and for positions.
func (in *input) read() error {
	in.sources = &sources{dir: in.details.WorkingDir, expand: in.expand}
	for _, path := range in.options.ConfigPaths {
		abs, content, err := readFile(path)
		if err != nil {
			return faults.New(faults.NotFound, "%w", err).WithHint("name another file: uc deploy -f FILE")
		}
		in.files = append(in.files, abs)
		in.sources.files = in.files
		in.details.ConfigFiles = append(in.details.ConfigFiles, types.ConfigFile{Filename: abs, Content: content})
		in.sources.add(abs, content)
	}
	return nil
}

// readFile is a file's absolute path and content; "-" is the standard input.
func readFile(path string) (string, []byte, error) {
	if path == "-" {
		content, err := io.ReadAll(os.Stdin)
		return path, content, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", nil, err
	}
	content, err := os.ReadFile(abs)
	return abs, content, err
}

// modelOptions make the parser leave names and paths as they were written.
func (in *input) modelOptions(o *loader.Options) {
	name, explicit := in.options.Environment[consts.ComposeProjectName], true
	if name == "" {
		name, explicit = loader.NormalizeProjectName(filepath.Base(in.details.WorkingDir)), false
	}
	o.SetProjectName(loader.NormalizeProjectName(name), explicit)
	o.SkipNormalization = true
	o.ResolvePaths = false
	o.Interpolate.Substitute = in.substitute
}

// projectName is the name that the services get. The parser has left its own
// choice in the environment, because files may refer to it.
func (in *input) projectName(opt Options) (string, error) {
	name := opt.ProjectName
	if name == "" {
		// A folder may be called my_app, and a project must be a DNS label.
		name = strings.Trim(strings.ReplaceAll(in.details.Environment[consts.ComposeProjectName], "_", "-"), "-")
	}
	if err := spec.CheckName("project", name); err != nil {
		return "", faults.New(faults.Invalid, "%w", err).WithHint("write `name: my-app` at the top of the file")
	}
	return name, nil
}

// bind makes the typed project: names and paths filled in, services chosen.
func (c *converter) bind(in *input, name string) error {
	tree := clone(c.tree).(map[string]any)
	if err := paths.ResolveRelativePaths(tree, in.details.WorkingDir, nil); err != nil {
		return err
	}
	tree["name"] = name
	tree, err := loader.Normalize(tree, in.details.Environment)
	if err != nil {
		return err
	}
	opts := loader.ToOptions(&in.details, []func(*loader.Options){
		loader.WithProfiles(in.profiles), loader.WithSelectedServices(in.services),
		loader.WithDiscardEnvFiles, loader.WithoutUnnecessaryResources,
	})
	opts.SetProjectName(name, true)
	c.typed, err = loader.ModelToProject(tree, opts, in.details)
	return err
}

// clone copies maps and lists, so that the tree stays as it was written.
func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[k] = clone(e)
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i, e := range v {
			l[i] = clone(e)
		}
		return l
	}
	return v
}

// splitList is the items of a comma-separated list, trimmed; empty ones count.
func splitList(s string) []string {
	if s == "" {
		return nil
	}
	items := strings.Split(s, ",")
	for i := range items {
		items[i] = strings.TrimSpace(items[i])
	}
	return items
}
