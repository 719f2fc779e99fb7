package plan

import (
	"cmp"
	"slices"
	"strings"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// leveled is a spec with how many services have to come before it.
type leveled struct {
	spec.ServiceSpec
	level int
}

// ordered sorts specs by level, then name. A service that is there twice, that
// depends on an unknown one or on itself is an invalid fault. Services outside
// of the request, such as those that were not selected, may be depended on.
func ordered(specs []spec.ServiceSpec, known func(name string) bool) ([]leveled, error) {
	l := leveler{specs: map[string]spec.ServiceSpec{}, known: known, levels: map[string]int{}}
	for _, sp := range specs {
		if err := spec.CheckName("service", sp.Name); err != nil {
			return nil, faults.New(faults.Invalid, "%w", err).WithHint("rename it in the Compose file, then: uc deploy")
		}
		if _, twice := l.specs[sp.Name]; twice {
			return nil, faults.New(faults.Invalid, "service %s is in the request twice", sp.Name).WithHint("name it once")
		}
		l.specs[sp.Name] = sp
	}
	var out []leveled
	for _, sp := range specs {
		n, err := l.level(sp.Name, nil)
		if err != nil {
			return nil, err
		}
		out = append(out, leveled{sp, n})
	}
	slices.SortFunc(out, func(a, b leveled) int {
		return cmp.Or(cmp.Compare(a.level, b.level), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

type leveler struct {
	specs  map[string]spec.ServiceSpec
	known  func(string) bool
	levels map[string]int
}

func (l *leveler) level(name string, path []string) (int, error) {
	if n, done := l.levels[name]; done {
		return n, nil
	}
	if slices.Contains(path, name) {
		return 0, faults.New(faults.Invalid, "services depend on each other in a circle: %s",
			strings.Join(append(path, name), " -> ")).WithHint("remove one of these from depends_on in the Compose file, then: uc deploy")
	}
	level := 0
	for _, dep := range l.specs[name].DependsOn {
		if _, ok := l.specs[dep]; !ok {
			if l.known(dep) {
				continue
			}
			return 0, faults.New(faults.Invalid, "service %s depends on %s, which does not exist", name, dep).
				WithHint("add %s to the Compose file, or remove it from depends_on, then: uc deploy", dep)
		}
		n, err := l.level(dep, append(slices.Clone(path), name))
		if err != nil {
			return 0, err
		}
		level = max(level, n+1)
	}
	l.levels[name] = level
	return level, nil
}
