package compose

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"uncloud/internal/spec"
)

// maxFile bounds a config: it becomes part of the revision, which every
// machine of the cluster keeps.
const maxFile = 1 << 20

func (s *service) convertMounts() {
	used := map[string]bool{}
	for i, v := range s.in.Volumes {
		at := []string{"volumes", strconv.Itoa(i)}
		mount := spec.Mount{Type: spec.MountType(v.Type), Source: v.Source, Target: v.Target, ReadOnly: v.ReadOnly}
		if !path.IsAbs(mount.Target) {
			s.refuse(at, "begin the target with /", "%s: the target %q is not absolute", dotted(at), mount.Target)
		}
		switch v.Type {
		case types.VolumeTypeVolume:
			if v.Source == "" {
				s.refuse(at, "give it a name: NAME:"+v.Target, "%s: a volume without a name is not supported", dotted(at))
			}
			used[v.Source] = true
		case types.VolumeTypeBind:
			s.checkBind(i, v, at)
		case types.VolumeTypeTmpfs:
			if v.Tmpfs != nil {
				mount.Size = int64(v.Tmpfs.Size)
			}
		default:
			s.refuse(at, "use volume, bind or tmpfs", "%s: type %s is not supported", dotted(at), v.Type)
		}
		s.out.Container.Mounts = append(s.out.Container.Mounts, mount)
	}
	s.convertTmpfs()
	s.checkMountOptions()
	delete(used, "")
	for _, name := range slices.Sorted(maps.Keys(used)) {
		s.convertVolume(name)
	}
}

// checkBind judges the path as it was written: the machines that run the
// service do not have the folder that a relative path is relative to.
func (s *service) checkBind(i int, v types.ServiceVolumeConfig, at []string) {
	if list, ok := s.raw["volumes"].([]any); ok && i < len(list) {
		written, _ := list[i].(map[string]any)
		if source, _ := written["source"].(string); !path.IsAbs(source) {
			s.refuse(at, "put files into the service with configs, or name an absolute path of the machine",
				"%s: the relative path %q is not supported", dotted(at), source)
		}
	}
	if v.Bind != nil && !bool(v.Bind.CreateHostPath) {
		s.refuse(at, "remove it", "%s: create_host_path: false is not supported", dotted(at))
	}
}

// convertTmpfs reads the short form: path[:size=64m].
func (s *service) convertTmpfs() {
	for i, text := range s.in.Tmpfs {
		at := []string{"tmpfs", strconv.Itoa(i)}
		target, options, _ := strings.Cut(text, ":")
		mount := spec.Mount{Type: spec.MountTmpfs, Target: target}
		for _, option := range splitList(options) {
			name, value, _ := strings.Cut(option, "=")
			var size types.UnitBytes
			if err := size.DecodeMapstructure(value); name != "size" || err != nil {
				s.refuse(at, "only size=BYTES is known", "%s: option %q is not supported", dotted(at), option)
				continue
			}
			mount.Size = int64(size)
		}
		if !path.IsAbs(target) {
			s.refuse(at, "begin it with /", "%s: the target %q is not absolute", dotted(at), target)
		}
		s.out.Container.Mounts = append(s.out.Container.Mounts, mount)
	}
}

// mountOptions are those of the short form volume:target:options that mean
// what they say here. Caching means nothing on Linux, nor z without SELinux.
var mountOptions = []string{"ro", "rw", "z", "Z", "cached", "delegated", "consistent", "nocopy",
	"private", "rprivate", "shared", "rshared", "slave", "rslave"}

// checkMountOptions looks at what was written, because the parser drops
// options of the short form that it does not know.
func (s *service) checkMountOptions() {
	for i, text := range s.sources.scalars([]string{"services", s.name, "volumes"}) {
		parts := strings.Split(text, ":")
		if len(parts) < 3 || strings.Contains(text, "$") {
			continue
		}
		for _, option := range strings.Split(parts[len(parts)-1], ",") {
			if !slices.Contains(mountOptions, option) {
				at := []string{"volumes", strconv.Itoa(i)}
				s.refuse(at, "known are ro and rw", "%s: option %q is not supported", dotted(at), option)
			}
		}
	}
}

// convertVolume declares the top-level volume that a mount refers to.
func (s *service) convertVolume(name string) {
	in := s.typed.Volumes[name]
	at := []string{"volumes", name}
	out := spec.VolumeSpec{
		Name: name, Driver: in.Driver, Options: in.DriverOpts,
		Labels: in.Labels, External: bool(in.External),
	}
	written, named := section(s.tree, at...)["name"].(string)
	switch {
	case named && out.External:
		out.Name = written
	case named && written != name:
		s.converter.refuse(slices.Concat(at, []string{"name"}), "remove it, or add external: true for a volume that exists",
			"volume %s: name without external is not supported", name)
	}
	switch shared := in.Extensions["x-shared"].(type) {
	case nil:
	case bool:
		out.Shared = shared
	default:
		s.converter.refuse(slices.Concat(at, []string{"x-shared"}), "write x-shared: true", "volume %s: x-shared must be true or false", name)
	}
	if !volumeName.MatchString(out.Name) {
		s.converter.refuse(at, "use 1-63 of letters, digits, _, . and -", "%q cannot name a volume", out.Name)
	}
	if out.Name != name {
		for i := range s.out.Container.Mounts {
			if m := &s.out.Container.Mounts[i]; m.Type == spec.MountVolume && m.Source == name {
				m.Source = out.Name
			}
		}
	}
	s.out.Volumes = append(s.out.Volumes, out)
}

// volumeName is what engines allow; unlike a service's name it is no DNS label.
var volumeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

func (s *service) convertConfigs() {
	for i, ref := range s.in.Configs {
		at := []string{"configs", strconv.Itoa(i)}
		content, ok := s.configContent(ref.Source)
		if !ok {
			continue
		}
		file := spec.File{Target: ref.Target, Content: content}
		if file.Target == "" {
			file.Target = "/" + ref.Source
		}
		if !path.IsAbs(file.Target) {
			file.Target = "/" + file.Target
		}
		if ref.Mode != nil {
			file.Mode = uint32(*ref.Mode)
		}
		file.UID = s.number(ref.UID, slices.Concat(at, []string{"uid"}))
		file.GID = s.number(ref.GID, slices.Concat(at, []string{"gid"}))
		s.checkTarget(file.Target, slices.Concat(at, []string{"target"}))
		s.out.Container.Files = append(s.out.Container.Files, file)
	}
}

// Where engines mount something of their own: in every container, and where
// its root is read-only.
var (
	engineMounts   = []string{"/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
	readOnlyMounts = []string{"/run", "/var/run", "/tmp", "/var/tmp"}
)

// checkTarget refuses a place where the service would not see the file: it is
// part of the container's own root, and what is mounted there covers it.
func (s *service) checkTarget(target string, at []string) {
	refuse := func(cover, what string) {
		s.refuse(at, "choose a target outside of "+cover, "a config at %s is hidden by %s", target, what)
	}
	for _, m := range s.out.Container.Mounts {
		if within(target, m.Target) {
			refuse(m.Target, fmt.Sprintf("the %s that is mounted at %s", m.Type, m.Target))
			return
		}
	}
	for _, dir := range engineMounts {
		if within(target, dir) {
			refuse(dir, "what the engine mounts at "+dir)
			return
		}
	}
	for _, dir := range readOnlyMounts {
		if s.out.Container.ReadOnly && within(target, dir) {
			refuse(dir, "the tmpfs that read_only brings at "+dir)
			return
		}
	}
}

// within tells whether an absolute path is a folder or lies below it.
func within(file, dir string) bool {
	file, dir = path.Clean(file), path.Clean(dir)
	return file == dir || strings.HasPrefix(file, strings.TrimSuffix(dir, "/")+"/")
}

func (s *service) number(text string, at []string) int {
	n, err := strconv.Atoi(text)
	if text != "" && (err != nil || n < 0) {
		s.refuse(at, "write the number", "%s: %q is not a number", dotted(at), text)
	}
	return n
}

// configContent is the bytes of a top-level config.
func (s *service) configContent(name string) ([]byte, bool) {
	in, at := s.typed.Configs[name], []string{"configs", name}
	switch {
	case in.Environment != "":
		value, ok := s.typed.Environment[in.Environment]
		if !ok {
			s.converter.refuse(at, "set it, or write its value as content:", "config %s: variable %s is not set", name, in.Environment)
		}
		return s.bounded([]byte(value), at), ok
	case in.File != "":
		content, err := os.ReadFile(filepath.Clean(in.File))
		if err != nil {
			s.converter.refuse(append(at, "file"), "name a file that is there, or write its text as content:", "config %s: %s", name,
				strings.ReplaceAll(err.Error(), in.File, s.sources.show(in.File)))
			return nil, false
		}
		return s.bounded(content, at), true
	}
	return s.bounded([]byte(in.Content), at), true
}

func (s *service) bounded(content []byte, at []string) []byte {
	if len(content) > maxFile {
		s.converter.refuse(at, "put it into the image or a volume", "%s is larger than 1 MiB", title(at))
	}
	return content
}
