package compose

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"uncloud/internal/faults"
)

func (s *service) convertExtensions() {
	s.out.Caddy = s.caddy()
	s.out.Placement.Machines = s.machines()
	switch failover := s.in.Extensions["x-failover"].(type) {
	case nil:
	case bool:
		s.out.Placement.Failover = failover
	default:
		s.refuse([]string{"x-failover"}, "write x-failover: true", "x-failover must be true or false")
	}
}

// refuseFault notes a Fault made without a place as one at a place.
func (s *service) refuseFault(at []string, err error) {
	hint := ""
	if f, ok := errors.AsType[*faults.Fault](err); ok {
		hint = f.Hint
	}
	s.refuse(at, hint, "%s", err)
}

// list is an extension that holds a list of strings or numbers.
func (s *service) list(key string) []string {
	value, given := s.in.Extensions[key]
	if !given {
		return nil
	}
	items, ok := value.([]any)
	if !ok {
		s.refuse([]string{key}, "write it as a list", "%s must be a list", key)
	}
	var out []string
	for i, item := range items {
		switch item.(type) {
		case string, int:
			out = append(out, strings.TrimSpace(fmt.Sprint(item)))
		default:
			s.refuse([]string{key, strconv.Itoa(i)}, "quote it", "%s[%d] must be text", key, i)
		}
	}
	return out
}

// machines is x-machines: a list, or one string with commas.
func (s *service) machines() []string {
	names := s.listOrText("x-machines")
	for _, name := range names {
		if name == "" {
			s.refuse([]string{"x-machines"}, "name machines as uc machine ls shows them", "x-machines has an empty name")
			return nil
		}
	}
	return names
}

func (s *service) listOrText(key string) []string {
	if text, ok := s.in.Extensions[key].(string); ok {
		if text == "" {
			return []string{""}
		}
		return splitList(text)
	}
	return s.list(key)
}

// caddy is the fragment of x-caddy: text that has several lines, a file's
// content, or either under the key config.
func (s *service) caddy() string {
	value, given := s.in.Extensions["x-caddy"]
	if m, ok := value.(map[string]any); ok {
		for name := range m {
			if name != "config" {
				s.refuse([]string{"x-caddy", name}, "it has one key, config", "x-caddy.%s is not supported", name)
			}
		}
		value = m["config"]
	}
	text, ok := value.(string)
	switch {
	case !given:
		return ""
	case !ok || strings.TrimSpace(text) == "":
		s.refuse([]string{"x-caddy"}, "write a Caddyfile fragment or a path to one", "x-caddy is not text")
		return ""
	case strings.Contains(text, "\n"):
		return text
	}
	file := text
	if !filepath.IsAbs(file) {
		file = filepath.Join(s.project.WorkingDir, file)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		s.refuse([]string{"x-caddy"}, "a text of one line is a path; write `x-caddy: |` for a fragment", "x-caddy: %v", err)
	}
	return string(content)
}
