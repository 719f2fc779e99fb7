package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestPage(t *testing.T) {
	counter := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			t.Errorf("counter was asked with %s", r.Method)
		}
		fmt.Fprintln(w, 42)
	}))
	defer counter.Close()
	s := &site{version: "7", host: "web-abcd", counter: counter.URL, client: counter.Client()}
	srv := httptest.NewServer(s.handler())
	defer srv.Close()
	if got := fetch(t, srv.URL, "*/*"); got != "version 7\nhost web-abcd\nvisits 42\n" {
		t.Errorf("%q", got)
	}
	if got := fetch(t, srv.URL, "text/html"); !strings.Contains(got, "version 7") || !strings.Contains(got, "<b>42</b>") {
		t.Errorf("%q", got)
	}
	counter.Close()
	if got := fetch(t, srv.URL, "*/*"); !strings.Contains(got, "visits unknown") {
		t.Errorf("without a counter: %q", got)
	}
}

func TestHealth(t *testing.T) {
	for fail, want := range map[bool]int{false: http.StatusOK, true: http.StatusServiceUnavailable} {
		answer := httptest.NewRecorder()
		(&site{fail: fail}).handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/health", http.NoBody))
		if answer.Code != want {
			t.Errorf("fail=%v: %d", fail, answer.Code)
		}
	}
}

func fetch(t *testing.T, url, accept string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
