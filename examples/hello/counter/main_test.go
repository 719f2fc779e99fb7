package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

func TestNumberSurvives(t *testing.T) {
	file := filepath.Join(t.TempDir(), "count")
	for _, want := range []string{"1", "2", "3"} {
		c, err := open(file) // as after a restart
		if err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewServer(c.handler())
		resp, err := http.Post(srv.URL, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		srv.Close()
		if got := strings.TrimSpace(string(body)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".count-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
