package main

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFlagsMayFollowArguments(t *testing.T) {
	tests := []struct{ in, want string }{
		{"signpost publish dir --wait", "signpost publish --wait dir"},
		{"signpost publish dir --data d other", "signpost publish --data d dir other"},
		{"signpost publish dir --data=d", "signpost publish --data=d dir"},
		{"signpost publish --wait dir -- --odd", "signpost publish --wait dir -- --odd"},
		{"signpost find CID --json --find http://x", "signpost find --json --find http://x CID"},
		{"signpost store remove-provider ID --admin http://x", "signpost store remove-provider --admin http://x ID"},
		{"signpost store check --detach", "signpost store check --detach"},
		{"signpost nonsense --x y", "signpost nonsense --x y"},
		{"signpost --version", "signpost --version"},
	}
	for _, tc := range tests {
		got := flagsFirst(newApp(io.Discard, io.Discard), strings.Fields(tc.in))
		if diff := cmp.Diff(strings.Fields(tc.want), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.in, diff)
		}
	}
}
