package command

import (
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"uncloud/cli/internal/render"
)

// format is the value of -o.
type format string

const (
	table      format = "table"
	jsonFormat format = "json"
)

func (f *format) String() string { return string(*f) }
func (f *format) Type() string   { return "format" }

func (f *format) Set(text string) error {
	switch format(text) {
	case table, jsonFormat:
		*f = format(text)
		return nil
	}
	return usage("there is no format %q", text).hint("formats: table, json")
}

// addOutput gives a command the flag -o.
func addOutput(cmd *cobra.Command, f *format) {
	*f = table
	cmd.Flags().VarP(f, "output", "o", "`format`: table or json (docs/cli-json.md)")
	_ = cmd.RegisterFlagCompletionFunc("output", // fails only for a flag that is not there
		func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{string(table), string(jsonFormat)}, cobra.ShellCompDirectiveNoFileComp
		})
}

// show writes a message as JSON, or has it written for people.
func (a *app) show(f format, m proto.Message, people func()) error {
	if f == jsonFormat {
		return render.JSON(a.ui.Out, m)
	}
	people()
	return nil
}
