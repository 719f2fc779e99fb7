package podman

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/containers/podman/v5/pkg/bindings"
	"github.com/containers/podman/v5/pkg/errorhandling"
)

// apiRoot is the oldest API that every Podman 5 speaks. The host name is a
// placeholder: the connection is a socket.
const apiRoot = "http://podman/v5.0.0/libpod"

// stream sends one request and returns the answer with its body open. Unlike
// the bindings' own request it is never repeated, because a repeated upload
// would begin in the middle, and the error that began it would be lost.
func (e *Engine) stream(ctx context.Context, method, path string, query url.Values, header http.Header, body io.Reader) (*http.Response, error) {
	call, err := e.call(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := bindings.GetClient(call)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, apiRoot+path+"?"+query.Encode(), body)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	res, err := conn.Client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode >= http.StatusBadRequest {
		defer res.Body.Close()
		return nil, answerError(res)
	}
	return res, nil
}

// answerError is the error that an answer carries, in the bindings' type.
func answerError(res *http.Response) error {
	const most = 64 << 10
	text, err := io.ReadAll(io.LimitReader(res.Body, most))
	if err != nil {
		return fmt.Errorf("%s: %w", res.Status, err)
	}
	m := &errorhandling.ErrorModel{}
	if json.Unmarshal(text, m) != nil || m.Message == "" {
		m.Message = strings.TrimSpace(res.Status + " " + string(text))
	}
	m.ResponseCode = res.StatusCode
	return m
}
