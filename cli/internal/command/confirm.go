package command

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
)

// addYes gives a command the flag -y.
func (a *app) addYes(cmd *cobra.Command, yes *bool) {
	preset := a.Getenv("UNCLOUD_AUTO_CONFIRM")
	cmd.Flags().BoolVarP(yes, "yes", "y", preset == "1" || preset == "true", "do not ask (UNCLOUD_AUTO_CONFIRM=true)")
	cmd.Flags().Lookup("yes").DefValue = "false"
}

// agree asks whether a plan that was shown is to be carried out, and is what the
// call that does so names: the plan's digest, so that it does nothing else, or
// nothing where nobody was asked.
func (a *app) agree(ctx context.Context, yes bool, shown *uncloudv1.Plan, question string) (string, error) {
	if yes {
		return "", nil
	}
	return shown.GetDigest(), a.confirm(ctx, yes, question)
}

// confirm asks a question that must be answered with yes. Where nobody can
// answer it is a fault: a script has to say -y.
func (a *app) confirm(ctx context.Context, yes bool, question string) error {
	if yes {
		return nil
	}
	if !term.IsTerminal(int(a.Stdin.Fd())) {
		return faults.New(faults.Invalid, "nobody is there to say yes: standard input is no terminal").
			WithHint("look at the plan first, then say yes with -y")
	}
	fmt.Fprintf(a.ui.Err, "%s [y/N] ", question)
	answers := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(a.Stdin).ReadString('\n') // an end without an answer is a no
		answers <- text
	}()
	select {
	case <-ctx.Done():
		a.ui.Err.Line("")
		return faults.New(faults.Interrupted, "nothing was changed").Because(ctx.Err())
	case text := <-answers:
		switch strings.ToLower(strings.TrimSpace(text)) {
		case "y", "yes":
			return nil
		}
		return faults.New(faults.Interrupted, "nothing was changed")
	}
}
