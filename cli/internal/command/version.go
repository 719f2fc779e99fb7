package command

import (
	"context"
	"encoding/json"
	"runtime"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
)

// versionWait bounds how long uc version waits for a machine to say its own.
const versionWait = 3 * time.Second

// versions is what uc version -o json writes. Machine is null where none answers.
type versions struct {
	Client  clientVersion   `json:"client"`
	Machine json.RawMessage `json:"machine"`
}

type clientVersion struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersion(a *app) *cobra.Command {
	var output format
	cmd := &cobra.Command{
		Use: "version", Short: "Show the version of uc and of the connected machine", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			own := clientVersion{a.Version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			info := a.connectedInfo(cmd.Context())
			if output == jsonFormat {
				return a.versionJSON(own, info)
			}
			machine := "none answers"
			if info != nil {
				machine = info.GetVersion() + " (" + orWord(info.GetName(), "no member yet") + ", " + info.GetPhase() + ")"
			}
			render.Fields(a.ui.Out, "uc", own.Version+" "+own.Platform, "machine", machine)
			return nil
		},
	}
	addOutput(cmd, &output)
	return cmd
}

// connectedInfo is nil where no machine answers: a version is asked for most
// when something is wrong.
func (a *app) connectedInfo(ctx context.Context) *uncloudv1.InfoResponse {
	ctx, cancel := context.WithTimeout(ctx, versionWait)
	defer cancel()
	client, err := a.connect(ctx)
	if err != nil {
		return nil
	}
	answer, err := client.Machine("").Info(ctx, connect.NewRequest(&uncloudv1.InfoRequest{}))
	if err != nil {
		return nil
	}
	return answer.Msg
}

func (a *app) versionJSON(own clientVersion, info *uncloudv1.InfoResponse) error {
	all := versions{Client: own, Machine: json.RawMessage("null")}
	if info != nil {
		var err error
		if all.Machine, err = render.Message(info); err != nil {
			return err
		}
	}
	return render.Value(a.ui.Out, all)
}

func orWord(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
