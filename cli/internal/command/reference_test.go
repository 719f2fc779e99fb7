package command

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	uncloudv1 "uncloud/api/uncloud/v1"
)

var update = flag.Bool("update", false, "rewrite docs/cli.md and docs/cli-json.md")

func testRoot() *cobra.Command {
	return newRoot(&app{Process: Process{Stdout: os.Stdout, Stderr: os.Stderr, Getenv: func(string) string { return "" }, Now: time.Now}})
}

// golden compares a generated page with the one that is kept.
func golden(t *testing.T, path string, want []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what the program says (%v); go test ./cli/internal/command -update", path, err)
	}
}

func TestCommandReference(t *testing.T) {
	var b bytes.Buffer
	fmt.Fprint(&b, "# Commands of uc\n\nGenerated from the program's own help. Exit codes: 0 done; 1 a fault, told on standard error;\n"+
		"2 the command line is wrong; 130 ended by Ctrl-C. `exec` passes the exit code of its command on.\n"+
		"What `-o json` writes is in [cli-json.md](cli-json.md).\n\n## uc\n\n")
	root := testRoot()
	fmt.Fprintf(&b, "%s\n\nFlags of every command:\n\n", root.Long)
	writeFlags(&b, root.PersistentFlags())
	for _, cmd := range root.Commands() {
		writeCommand(&b, cmd)
	}
	fmt.Fprint(&b, "## uc completion\n\n    uc completion bash|zsh|fish|powershell\n\nWrite a script that completes commands, flags, and names of machines and services in a shell;\n"+
		"`uc completion SHELL --help` says how to load it.\n")
	golden(t, "../../../docs/cli.md", b.Bytes())
}

func writeCommand(b *bytes.Buffer, cmd *cobra.Command) {
	if cmd.HasAvailableSubCommands() && cmd.Flags().Lookup("output") == nil {
		fmt.Fprintf(b, "## %s\n\n%s.\n\n", cmd.CommandPath(), cmd.Short)
		if cmd.Long != "" {
			fmt.Fprintf(b, "```text\n%s\n```\n\n", cmd.Long)
		}
		for _, sub := range cmd.Commands() {
			writeCommand(b, sub)
		}
		return
	}
	level := strings.Repeat("#", len(strings.Fields(cmd.CommandPath())))
	fmt.Fprintf(b, "%s %s\n\n    %s\n\n", level, cmd.CommandPath(), cmd.UseLine())
	text := cmd.Short + "."
	if cmd.Long != "" {
		text = cmd.Long
	}
	fmt.Fprintf(b, "%s\n\n", strings.TrimSpace(text))
	writeFlags(b, cmd.NonInheritedFlags())
	if cmd.Example != "" {
		fmt.Fprintf(b, "Examples:\n\n%s\n\n", regexp.MustCompile(`(?m)^  `).ReplaceAllString(cmd.Example, "    "))
	}
	for _, sub := range cmd.Commands() {
		writeCommand(b, sub)
	}
}

func writeFlags(b *bytes.Buffer, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	fmt.Fprint(b, "| flag | meaning | default |\n|---|---|---|\n")
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" || f.Hidden {
			return
		}
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		_, meaning := pflag.UnquoteUsage(f)
		byDefault := f.DefValue
		if slices.Contains([]string{"", "false", "[]"}, byDefault) {
			byDefault = ""
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", name, strings.ReplaceAll(meaning, "|", `\|`), byDefault)
	})
	fmt.Fprintln(b)
}

// Every command says what it does in one line that reads like the others.
func TestHelpIsAlike(t *testing.T) {
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			if sub.Name() == "completion" || sub.Name() == "help" {
				continue // cobra's own
			}
			if sub.Short == "" || strings.HasSuffix(sub.Short, ".") || sub.Short[:1] != strings.ToUpper(sub.Short[:1]) {
				t.Errorf("%s: %q", sub.CommandPath(), sub.Short)
			}
			sub.Flags().VisitAll(func(f *pflag.Flag) {
				if f.Name != "help" && (f.Usage == "" || strings.HasSuffix(f.Usage, ".")) {
					t.Errorf("%s --%s: %q", sub.CommandPath(), f.Name, f.Usage)
				}
			})
			visit(sub)
		}
	}
	visit(testRoot())
}

// Commands that list or inspect, and what they write. Empty: not a message.
var jsonCommands = []struct {
	command string
	message proto.Message
}{
	{"uc deploy --dry-run", &uncloudv1.Plan{}},
	{"uc scale --dry-run", &uncloudv1.Plan{}},
	{"uc rollback --dry-run", &uncloudv1.Plan{}},
	{"uc events", &uncloudv1.ListEventsResponse{}},
	{"uc image ls", &uncloudv1.ListImagesResponse{}},
	{"uc inspect", &uncloudv1.Service{}},
	{"uc logs", &uncloudv1.LogLine{}},
	{"uc ls", &uncloudv1.ListServicesResponse{}},
	{"uc machine generations", &uncloudv1.ListGenerationsResponse{}},
	{"uc machine init", &uncloudv1.InfoResponse{}},
	{"uc machine inspect", &uncloudv1.Machine{}},
	{"uc machine label", &uncloudv1.Machine{}},
	{"uc machine ls", &uncloudv1.ListMachinesResponse{}},
	{"uc machine rollback", &uncloudv1.UpgradeStatus{}},
	{"uc machine ticket", &uncloudv1.CreateTicketResponse{}},
	{"uc machine ticket ls", &uncloudv1.ListTicketsResponse{}},
	{"uc machine upgrade", &uncloudv1.UpgradeStatus{}},
	{"uc ps", &uncloudv1.ListReplicasResponse{}},
	{"uc store check", &uncloudv1.CheckStoreResponse{}},
	{"uc store status", &uncloudv1.StoreStatusResponse{}},
	{"uc volume ls", &uncloudv1.ListVolumesResponse{}},
	{"uc wg show", &uncloudv1.WireGuardResponse{}},
	{"uc version", nil},
	{"uc ctx ls", nil},
	{"uc ctx show", nil},
}

const jsonPreface = `# The JSON of uc

Generated from the API's definition. What is named here stays: fields are added, and never renamed or removed.

- One document, indented. ` + "`uc logs -o json`" + ` writes one document a line.
- Every field is always there. What is not known is "", 0, false, [], {} or, for times, null.
- Times are RFC 3339 in UTC. Numbers of 64 bits (int64, uint64) are strings, because JavaScript cannot hold them.
- A list is an object with one array, so that more can be said beside it: ` + "`uc machine ls -o json | jq -r '.machines[].name'`" + `.
- ` + "`specJson`" + ` is the spec as JSON within a string: ` + "`uc inspect web -o json | jq '.specJson | fromjson'`" + `.
- Faults are not JSON. They are told on standard error, and the exit code is not 0.

## What each command writes

| command | document |
|---|---|
`

const jsonOthers = `| ` + "`uc store status --all`" + ` | {"machines": [{"machine": name, "status": [StoreStatusResponse](#storestatusresponse)}]} |
| ` + "`uc version`" + ` | {"client": {"version", "go", "platform"}, "machine": [InfoResponse](#inforesponse) or null} |
| ` + "`uc ctx ls`" + ` | {"contexts": [{"name", "current", "connections": [address]}]} |
| ` + "`uc ctx show`" + ` | {"name", "current", "connections": [address]} |

## Documents
`

func TestJSONReference(t *testing.T) {
	b := bytes.NewBufferString(jsonPreface)
	comments := protoComments(t)
	var messages []protoreflect.MessageDescriptor
	add := func(m protoreflect.MessageDescriptor) {
		if !slices.Contains(messages, m) && !strings.HasPrefix(string(m.FullName()), "google.") {
			messages = append(messages, m)
		}
	}
	for _, c := range jsonCommands {
		if c.message != nil {
			d := c.message.ProtoReflect().Descriptor()
			add(d)
			fmt.Fprintf(b, "| `%s` | [%s](#%s) |\n", c.command, d.Name(), strings.ToLower(string(d.Name())))
		}
	}
	b.WriteString(jsonOthers)
	for i := 0; i < len(messages); i++ { // grows by the messages within
		m := messages[i]
		fmt.Fprintf(b, "\n### %s\n\n", m.Name())
		if text := comments[string(m.Name())]; text != "" {
			fmt.Fprintf(b, "%s\n\n", text)
		}
		fmt.Fprint(b, "| field | type | |\n|---|---|---|\n")
		for n := range m.Fields().Len() {
			f := m.Fields().Get(n)
			if inner := elementOf(f).Message(); inner != nil {
				add(inner)
			}
			fmt.Fprintf(b, "| `%s` | %s | %s |\n", f.JSONName(), typeName(f), comments[string(m.Name())+"."+string(f.Name())])
		}
	}
	b.WriteString(healthCodes)
	golden(t, "../../../docs/cli-json.md", b.Bytes())
}

// healthCodes is held against the agent's source by a test of internal/house.
const healthCodes = `
## Codes of health notes

What ` + "`code`" + ` of a [HealthNote](#healthnote) can be. Like fields, they stay; the texts are for people and may change.

| code | of | what it means |
|---|---|---|
| ` + "`engine`" + ` | machine | Podman does not answer, or has no network for containers |
| ` + "`firewall`" + ` | machine | the rules of the cluster cannot be loaded |
| ` + "`firewall.forward-drop`" + ` | machine | a chain of its own firewall drops what is forwarded to and from containers |
| ` + "`firewall.input-drop`" + ` | machine | a chain of its own firewall drops what other machines send it |
| ` + "`firewall.not-owned`" + ` | machine | its kernel lets other programs remove the rules of the cluster |
| ` + "`first-boot`" + ` | machine | something in uncloud.txt could not be done |
| ` + "`ingress`" + ` | machine | the ingress cannot load its configuration |
| ` + "`ingress.route`" + ` | machine | a service asks for a route that this ingress cannot serve |
| ` + "`join`" + ` | machine | no member yet: why its ticket did not let it in |
| ` + "`mesh`" + ` | machine | WireGuard cannot be set up as the members ask |
| ` + "`store`" + ` | machine | the replicated state cannot be written |
| ` + "`store.clock`" + ` | machine | its clock and that of another machine differ too much |
| ` + "`store.clone`" + ` | machine | another machine runs on a copy of its disk |
| ` + "`store.full`" + ` | machine | no space is left for the replicated state, and changes are refused until there is |
| ` + "`store.quarantine`" + ` | machine | rows of others that do not fit their tables are set aside |
| ` + "`store.unreadable`" + ` | machine | rows of others that a newer agent wrote cannot be read |
| ` + "`ticket`" + ` | machine | a machine with a ticket of this one could not join, and why |
| ` + "`upgrade`" + ` | machine | it is being upgraded, or its upgrade failed |
| ` + "`never-ran`" + ` | service | its first deploy failed while a machine was down that may run it; it is forgotten when every machine is up and none does |
| ` + "`route-taken`" + ` | service | another service has the host name or port that it asks for |
| ` + "`superseded`" + ` | service | its last rollout ended because another revision won |

A machine that keeps a service as its row asks says why it cannot with the code of the fault: ` + "`no-place`" + `, ` + "`no-image`" + `, ` + "`machine-down`" + `,
` + "`conflict`" + ` and the others that errors have.
`

func elementOf(f protoreflect.FieldDescriptor) protoreflect.FieldDescriptor {
	if f.IsMap() {
		return f.MapValue()
	}
	return f
}

func typeName(f protoreflect.FieldDescriptor) string {
	e := elementOf(f)
	name := e.Kind().String()
	if m := e.Message(); m != nil {
		name = fmt.Sprintf("[%s](#%s)", m.Name(), strings.ToLower(string(m.Name())))
		if m.FullName() == "google.protobuf.Timestamp" {
			name = "time"
		}
	}
	switch {
	case f.IsMap():
		return "object of " + name
	case f.IsList():
		return "array of " + name
	}
	return name
}

// protoComments are the comments right above messages and fields, by
// "Message" and "Message.field": the compiled definition does not have them.
func protoComments(t *testing.T) map[string]string {
	t.Helper()
	comments := map[string]string{}
	item := regexp.MustCompile(`^(?:message (\w+)|  (?:repeated )?[\w.<>, ]+ (\w+) = \d+;)`)
	for _, file := range []string{"types", "cluster", "machine", "upgrade"} {
		text, err := os.ReadFile("../../../api/uncloud/v1/" + file + ".proto")
		if err != nil {
			t.Fatal(err)
		}
		message, pending := "", []string{}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimRight(line, "\n")
			if comment, ok := strings.CutPrefix(strings.TrimSpace(line), "//"); ok {
				pending = append(pending, strings.TrimSpace(comment))
				continue
			}
			if m := item.FindStringSubmatch(line); m != nil {
				name := message + "." + m[2]
				if m[1] != "" {
					message, name = m[1], m[1]
				}
				comments[name] = strings.Join(pending, " ")
			}
			pending = nil
		}
	}
	return comments
}

// A command that has -o says in the reference what it writes, and the other
// way round.
func TestEveryJSONIsDocumented(t *testing.T) {
	documented := map[string]bool{}
	for _, c := range jsonCommands {
		documented[strings.TrimSuffix(c.command, " --dry-run")] = true
	}
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if has := cmd.Flags().Lookup("output") != nil; has != documented[cmd.CommandPath()] {
			t.Errorf("%s has -o: %t, and in the reference: %t", cmd.CommandPath(), has, !has)
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(testRoot())
}
