package firstboot

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// The names under which a file is looked for, and the credential's.
const (
	settingsName = "uncloud.txt"
	ticketName   = "uncloud.ticket"
)

// Options are what a boot works with. Every field but Coming, Credentials and
// the Checks must be set.
type Options struct {
	Directory string   // where what was read is kept
	Volumes   []string // labels, in the order in which they are looked at
	// Mount makes the files of a volume readable; the error is fs.ErrNotExist
	// where the machine has none with that label.
	Mount func(label string) (*Volume, error)
	// Patience is for how long a machine that was never told anything waits
	// for a volume that is not there yet: a stick takes seconds to appear. Any
	// machine waits as long for a drive that is Coming, and for a volume that
	// cannot be mounted.
	Patience time.Duration
	// Coming tells whether a drive is plugged in whose volumes are not known yet.
	Coming func() bool
	// Credentials is the folder of systemd's credentials; empty: there is none.
	Credentials string
	// Member tells whether the machine belongs to a cluster. Where that cannot
	// be told it is taken for a member, and keeps who it is.
	Member func() (bool, error)
	Checks Checks
	Disk   Disk
	System System
	// Say tells a sentence to whoever stands before the machine.
	Say func(sentence string)
}

// Volume is one of which the files can be read.
type Volume struct {
	Name string       // as a person calls it
	Path string       // where it is mounted
	Open func() error // makes it writable
	// Close leaves it as it was found.
	Close func() error
}

// Run is one boot. It has no error: what goes wrong is said, and kept for the
// agent to tell the cluster, and the machine boots on with what it has.
func Run(ctx context.Context, o Options) {
	b := boot{Options: o, dir: directory{o.Disk, o.Directory}}
	member, err := o.Member()
	if err != nil {
		b.trouble("whether this machine is a member cannot be told, so it keeps who it is: %v", err)
	}
	b.member = member || err != nil
	if !b.fromVolumes(ctx) {
		b.fromCredential()
	}
	for _, sentence := range b.System.Apply(ctx, b.dir) {
		b.trouble("%s", sentence)
	}
	b.record()
}

type boot struct {
	Options
	dir      directory
	member   bool
	troubles []string
	refused  Refused
}

func (b *boot) trouble(format string, args ...any) {
	sentence := fmt.Sprintf(format, args...)
	if !slices.Contains(b.troubles, sentence) {
		b.troubles = append(b.troubles, sentence)
		b.Say(sentence)
	}
}

// record keeps the troubles for the agent.
func (b *boot) record() {
	var err error
	if len(b.troubles) == 0 {
		err = b.dir.remove(TroublesFile)
	} else {
		err = b.dir.put(file{TroublesFile, strings.Join(b.troubles, "\n") + "\n", 0o644})
	}
	if err != nil {
		b.Say(fmt.Sprintf("these troubles cannot be kept: %v", err))
	}
	if err := b.recordRefused(); err != nil {
		b.Say(fmt.Sprintf("what was refused cannot be kept for the cluster: %v", err))
	}
}

// recordRefused keeps with what the cluster can be told. The ticket is still on
// the volume as well.
func (b *boot) recordRefused() error {
	if b.refused.Ticket == "" || b.member {
		return b.dir.remove(RefusedFile)
	}
	text, err := json.Marshal(b.refused)
	if err != nil {
		return err
	}
	return b.dir.put(file{RefusedFile, string(text) + "\n", 0o600})
}

// fromVolumes reads the first file on the volumes, and tells whether there was one.
func (b *boot) fromVolumes(ctx context.Context) bool {
	patience := time.NewTimer(b.Patience)
	defer patience.Stop()
	again := time.NewTicker(250 * time.Millisecond)
	defer again.Stop()
	left := b.Volumes
	for {
		coming := b.Coming != nil && b.Coming() // asked first: what has come by now is looked at
		missing, failed, found := b.look(left)
		left = missing
		if found || len(left) == 0 || len(failed) == 0 && !coming && !b.waits() || !pause(ctx, patience.C, again.C) {
			for _, sentence := range failed {
				b.trouble("%s", sentence)
			}
			return found
		}
	}
}

// look reads volumes up to the first with a file. missing are those that are
// not there yet, or that cannot be mounted: failed says of each why.
func (b *boot) look(labels []string) (missing, failed []string, found bool) {
	for _, label := range labels {
		v, err := b.Mount(label)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, label)
		case err != nil:
			missing = append(missing, label)
			failed = append(failed, fmt.Sprintf("the volume %s cannot be read: %v", label, err))
		case b.fromVolume(v):
			return missing, failed, true
		}
	}
	return missing, failed, false
}

// pause waits for another look, and tells whether there is one.
func pause(ctx context.Context, over, again <-chan time.Time) bool {
	select {
	case <-ctx.Done():
		return false
	case <-over:
		return false
	case <-again:
		return true
	}
}

// waits tells whether this machine was never told anything.
func (b *boot) waits() bool {
	_, configured := b.dir.read(ConfigFile)
	_, lets := b.dir.read(keysFile)
	_, credential := b.credential()
	return !b.member && !configured && !lets && !credential
}

// source is a file with settings.
type source struct {
	name    string // as it is called on the volume
	where   string // for people
	content []byte
}

// fromVolume reads a volume's files, and tells whether there was one.
func (b *boot) fromVolume(v *Volume) bool {
	defer func() {
		if err := v.Close(); err != nil {
			b.trouble("the volume %s cannot be left: %v", v.Name, err)
		}
	}()
	names, err := b.Disk.List(v.Path)
	if err != nil {
		b.trouble("the volume %s cannot be read: %v", v.Name, err)
		return false
	}
	sources, ok := b.sources(v, names)
	if !ok {
		return true
	}
	if len(sources) == 0 {
		b.lookAround(v, names)
		return false
	}
	if settings, ok := b.understand(sources); ok && b.keep(settings, sources) {
		b.takeAll(v, sources, settings)
	}
	return true
}

// sources reads the files of a volume. It ends what an earlier boot began and
// was cut off from. It is not ok where a file cannot be read.
func (b *boot) sources(v *Volume, names []string) ([]source, bool) {
	var out []source
	for _, want := range []string{settingsName, ticketName} {
		i := slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, want) })
		if i < 0 {
			b.forget(v, want)
			continue
		}
		s := source{name: names[i], where: names[i] + " on " + v.Name}
		var err error
		if s.content, err = b.Disk.ReadFile(path.Join(v.Path, s.name)); err != nil {
			b.trouble("%s cannot be read: %v", s.where, err)
			return nil, false
		}
		if t, begun := b.dir.isTaken(v.Name, s.name, s.content); begun {
			b.off(v, s, func(at string) error { return b.dir.wipe(at, t, len(s.content)) })
			continue
		}
		out = append(out, s)
	}
	return out, true
}

// forget ends the taking of a file that has its new name already.
func (b *boot) forget(v *Volume, name string) {
	if t, ok := b.dir.taking(); ok && t.Volume == v.Name && strings.EqualFold(t.File, name) {
		// The new name may be of a moment ago, and not on the disk yet.
		err := b.Disk.Sync(v.Path)
		if err == nil {
			err = b.dir.remove(takingFile)
		}
		if err != nil {
			b.trouble("the taking of %s on %s cannot be ended: %v", name, v.Name, err)
		}
	}
}

// lookAround finds the file under a name that an editor or a browser gave it.
func (b *boot) lookAround(v *Volume, names []string) {
	for _, n := range names {
		low := strings.ToLower(n)
		if strings.HasPrefix(low, "uncloud.") && low != settingsName && low != ticketName && !strings.HasSuffix(low, readSuffix) {
			b.trouble("there is %s on %s, which is not read: call it %s", n, v.Name, settingsName)
		}
	}
}

// understand parses all files together. Where one has a trouble, nothing of
// any is taken.
func (b *boot) understand(sources []source) (Settings, bool) {
	var all Settings
	ok, found := true, Refused{}
	for _, s := range sources {
		got, troubles := Parse(s.content, b.Checks)
		who := about(s.content, b.Checks)
		found = Refused{Name: cmp.Or(found.Name, who.Name), Ticket: cmp.Or(found.Ticket, who.Ticket)}
		if len(troubles) == 0 {
			troubles = b.fits(s, &all, got)
		}
		for _, t := range troubles {
			ok = false
			sep := ", "
			if t.Line == 0 {
				sep = ": "
			}
			b.trouble("%s%s%s", s.where, sep, t)
		}
	}
	if !ok {
		b.refused = found
		b.Say("nothing was taken from it: mend it, and start the machine again")
	}
	return all, ok
}

// fits puts what one file says to what those before it said.
func (b *boot) fits(s source, all *Settings, got Settings) []Trouble {
	if !strings.EqualFold(s.name, ticketName) {
		*all = got
		return nil
	}
	ticket := got.Ticket
	got.Ticket = ""
	switch {
	case ticket == "" || !got.empty():
		return []Trouble{{Text: "it may hold a ticket and nothing else: put settings into " + settingsName}}
	case all.Ticket != "" && all.Ticket != ticket:
		return []Trouble{{Text: "there is another ticket in " + settingsName + ": remove one of the two"}}
	}
	all.Ticket = ticket
	return nil
}

// keep puts the settings into the directory.
func (b *boot) keep(settings Settings, sources []source) bool {
	where := sources[0].where
	for _, s := range sources[1:] {
		where += " and " + s.where
	}
	takes := settings
	if b.member {
		takes = settings.forMember()
	}
	if err := b.dir.place(takes); err != nil {
		b.trouble("%s could not be kept: %v", where, err)
		return false
	}
	b.Say(where + " was read: " + takes.String())
	if b.member && !settings.identity().empty() {
		b.Say("this machine is a member already and keeps its name, labels and roles: change them with uc machine, or leave with uncloudd reset")
	}
	return true
}

// takeAll gets the secrets off the volume, and the files out of the way.
func (b *boot) takeAll(v *Volume, sources []source, settings Settings) {
	secret := settings.Ticket != "" || settings.WiFi.Network != ""
	for _, s := range sources {
		if !b.off(v, s, func(at string) error { return b.dir.take(v.Name, at, s.content, secret) }) && !secret {
			return
		}
	}
}

func (b *boot) off(v *Volume, s source, take func(at string) error) bool {
	err := v.Open()
	if err == nil {
		err = take(path.Join(v.Path, s.name))
	}
	if err != nil {
		b.trouble("what is in %s is known now and cannot be taken off, so remove the file: %v", s.where, err)
	}
	return err == nil
}

// credential is the one that systemd passed.
func (b *boot) credential() ([]byte, bool) {
	if b.Credentials == "" {
		return nil, false
	}
	content, err := b.Disk.ReadFile(path.Join(b.Credentials, settingsName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.trouble("the credential %s cannot be read: %v", settingsName, err)
	}
	return content, err == nil
}

// fromCredential reads the credential, once: it is there at every boot, and
// must not undo what a file said since.
func (b *boot) fromCredential() {
	content, ok := b.credential()
	if !ok {
		return
	}
	sum := sha256.Sum256(content)
	mark := hex.EncodeToString(sum[:]) + "\n"
	if was, _ := b.dir.read(credentialFile); was == mark {
		return
	}
	from := []source{{name: settingsName, where: "the credential " + settingsName, content: content}}
	settings, ok := b.understand(from)
	if !ok || !b.keep(settings, from) {
		return
	}
	if err := b.dir.put(file{credentialFile, mark, 0o600}); err != nil {
		b.trouble("%v", err)
	}
}
