package compose

import (
	"cmp"
	"maps"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// converter collects what one load makes and what it refuses.
type converter struct {
	sources *sources
	tree    map[string]any // merged, as it was written
	typed   *types.Project // nil until bound
	project *Project
	found   []refusal
}

type refusal struct {
	path  []string
	place place
	err   error
}

// refuse notes an error at path, with what to do instead.
func (c *converter) refuse(path []string, hint, format string, args ...any) {
	c.found = append(c.found, refusal{path, c.sources.where(path), c.sources.fault(path, format, args...).WithHint("%s", hint)})
}

// refusals are the errors, in the order of the files, that concern what is to be deployed: services that
// profiles or the selection left out, and what only they use, may be anything.
func (c *converter) refusals() []error {
	found := slices.DeleteFunc(slices.Clone(c.found), func(r refusal) bool { return !c.concerns(r.path) })
	slices.SortStableFunc(found, func(a, b refusal) int {
		return cmp.Or(cmp.Compare(a.place.file, b.place.file), cmp.Compare(a.place.line, b.place.line))
	})
	out := make([]error, len(found))
	for i, r := range found {
		out[i] = r.err
	}
	return out
}

func (c *converter) concerns(path []string) bool {
	if c.typed == nil || len(path) < 2 {
		return true
	}
	ok := true
	switch path[0] {
	case "services":
		_, ok = c.typed.Services[path[1]]
	case "networks":
		_, ok = c.typed.Networks[path[1]]
	case "volumes":
		_, ok = c.typed.Volumes[path[1]]
	case "configs":
		_, ok = c.typed.Configs[path[1]]
	case "secrets":
		_, ok = c.typed.Secrets[path[1]]
	}
	return ok
}

// convert makes the specs of a bound project.
func (c *converter) convert() {
	c.checkNetworks(section(c.tree, "networks"), "networks")
	if text, ok := c.tree["x-context"].(string); ok {
		c.project.Context = text
	} else if c.tree["x-context"] != nil {
		c.refuse([]string{"x-context"}, "write the name of a context", "x-context must be text")
	}
	images := map[string]bool{}
	for _, name := range c.order() {
		s := &service{converter: c, name: name, in: c.typed.Services[name], raw: section(c.tree, "services", name)}
		s.convert()
		c.project.Specs = append(c.project.Specs, s.out)
		images[s.out.Container.Image] = true
	}
	delete(images, "")
	c.project.Images = slices.Sorted(maps.Keys(images))
}

// order is the services' names, dependencies first, else by name. The parser
// has refused cycles.
func (c *converter) order() []string {
	var out []string
	seen := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		service, ok := c.typed.Services[name]
		if seen[name] || !ok {
			return
		}
		seen[name] = true
		for _, first := range slices.Sorted(maps.Keys(service.DependsOn)) {
			visit(first)
		}
		out = append(out, name)
	}
	for _, name := range slices.Sorted(maps.Keys(c.typed.Services)) {
		visit(name)
	}
	return out
}

// checkNetworks refuses all but `default` without options: there is one
// network, and on it every service of a project reaches every other.
func (c *converter) checkNetworks(networks map[string]any, path ...string) {
	for _, name := range slices.Sorted(maps.Keys(networks)) {
		options, _ := networks[name].(map[string]any)
		if name != "default" || len(options) > 0 {
			c.refuse(slices.Concat(path, []string{name}), byName, "%s is not supported",
				title(slices.Concat(path, []string{name})))
		}
	}
}

// section is the map at path of tree, or nil.
func section(tree map[string]any, path ...string) map[string]any {
	for _, step := range path {
		tree, _ = tree[step].(map[string]any)
	}
	return tree
}

// service converts one service.
type service struct {
	*converter
	name string
	in   types.ServiceConfig
	raw  map[string]any // as it was written, to tell zero from not given
	out  spec.ServiceSpec
}

func (s *service) convert() {
	if err := spec.CheckName("service", s.name); err != nil {
		s.refuse(nil, "rename it", "%s", err)
	}
	s.out.Name = s.name
	s.convertContainer()
	s.convertResources()
	s.convertMounts()
	s.convertConfigs()
	s.convertHealth()
	s.convertPorts()
	s.convertExtensions()
	s.convertDeploy()
	s.convertDependencies()
}

// refuse notes an error at a path within the service. Its text begins with the
// service's name.
func (s *service) refuse(path []string, hint, format string, args ...any) {
	full := slices.Concat([]string{"services", s.name}, path)
	s.converter.refuse(full, hint, "service %s: "+format, append([]any{s.name}, args...)...)
}

func (s *service) convertDependencies() {
	for _, name := range slices.Sorted(maps.Keys(s.in.DependsOn)) {
		if s.in.DependsOn[name].Condition == types.ServiceConditionCompletedSuccessfully {
			s.refuse([]string{"depends_on", name, "condition"}, noHooks,
				"depends_on %s: service_completed_successfully is not supported", name)
		}
		if _, enabled := s.typed.Services[name]; enabled {
			s.out.DependsOn = append(s.out.DependsOn, name)
		}
	}
	// The parser fills `networks` in, so what was written decides.
	s.checkNetworks(section(s.raw, "networks"), "services", s.name, "networks")
}

// invalid is a Fault without a place, for what is parsed from one string.
func invalid(hint, format string, args ...any) *faults.Fault {
	return faults.New(faults.Invalid, format, args...).WithHint("%s", hint)
}
