package health

import "slices"

// Severity is how bad a condition is.
type Severity string

const (
	// Info wants no hand, but explains what is seen.
	Info Severity = "info"
	// Warning wants a look within a day: nothing is lost yet.
	Warning Severity = "warning"
	// Critical wants a person now.
	Critical Severity = "critical"
)

// rank orders severities; 0 is none.
func (s Severity) rank() int {
	return 1 + slices.Index([]Severity{Info, Warning, Critical}, s)
}

// Code names a condition. Codes are stable: one may be added or retired, and
// never means something else.
type Code string

// The conditions of an indexer.
const (
	DiskFilling           Code = "disk-filling"
	Frozen                Code = "frozen"
	DiskUnmeasured        Code = "disk-unmeasured"
	NoSpace               Code = "no-space"
	StoreFailed           Code = "store-failed"
	StoreDamaged          Code = "store-damaged"
	StoreSlow             Code = "store-slow"
	PublisherGap          Code = "publisher-gap"
	PublisherLagging      Code = "publisher-lagging"
	PublishersUnreachable Code = "publishers-unreachable"
	MirrorFailing         Code = "mirror-failing"
)

// The conditions of several roles.
const (
	GossipAlone      Code = "gossip-alone"
	AnnouncesDropped Code = "announces-dropped"
	DenylistStale    Code = "denylist-stale"
)

// The conditions of a frontend.
const (
	BackendDown    Code = "backend-down"
	NoQuorum       Code = "no-quorum"
	FilterBehind   Code = "filter-behind"
	AssignerSilent Code = "assigner-silent"
	ClockSkew      Code = "clock-skew"
)

// The conditions of an assigner.
const (
	PoolNodeSilent Code = "pool-node-silent"
	AssignerNoRoom Code = "assigner-no-room"
	JournalFailed  Code = "journal-failed"
	DrainStuck     Code = "drain-stuck"
	StandingBy     Code = "standing-by"
)

// Definition is what a code means.
type Definition struct {
	Code     Code
	Severity Severity
	Roles    string // whose condition it is
	Meaning  string // one line, without a full stop
	Remedy   string // the same
}

// definitions are all codes, in the order in which they are shown.
var definitions = []Definition{
	{DiskFilling, Warning, "indexer", "a tenth of the disk or ten minutes are left until the node freezes",
		"make room, or give the pool another node: signpost pool add"},
	{Frozen, Warning, "indexer", "the node takes no new content",
		"give the pool room; then signpost unfreeze"},
	{DiskUnmeasured, Warning, "indexer", "disk usage cannot be measured, or a freeze cannot be written",
		"read the log for the directory, and look at its file system"},
	{NoSpace, Critical, "indexer", "less than --disk-reserve is free, and no content is taken",
		"make room on the file system of the store; the node goes on by itself"},
	{StoreFailed, Critical, "indexer", "a write failed; lookups go on, and nothing is stored",
		"look at the disk; the node tries again by itself every 30 seconds"},
	{StoreDamaged, Critical, "indexer", "damage on disk has cost postings, and lookups there fail",
		"replace a failing disk, then signpost store reindex and mark-whole"},
	{StoreSlow, Warning, "indexer", "commits wait for longer than 5 seconds until they are on disk",
		"find out what else keeps the disk busy, or give the store a faster one"},
	{PublisherGap, Warning, "indexer", "chains of publishers break off at an advertisement that cannot be had",
		"ask the publisher for it, or give it up: signpost ad skip"},
	{PublisherLagging, Warning, "indexer", "publishers have had advertisements waiting for half an hour",
		"signpost status --publisher ID says what its server answered"},
	{PublishersUnreachable, Warning, "indexer", "more than half of the publishers tried lately were not reached",
		"look at this node's network and DNS first"},
	{MirrorFailing, Warning, "indexer", "a mirror could not be written or read within the last ten minutes",
		"look at the directory or bucket of --mirror and --mirror-from"},
	{GossipAlone, Info, "indexer, assigner", "nobody on gossip is connected, and announces come by HTTP only",
		"name a peer with --gossip-peer, or switch gossip off with --listen-p2p none"},
	{AnnouncesDropped, Warning, "indexer, assigner", "announces were dropped or refused for want of room within the last ten minutes",
		"look at what is slow: the indexers of the pool, or this node's disk"},
	{DenylistStale, Warning, "indexer, frontend", "the denylist in force is not that of the file",
		"correct the line that the log names"},
	{BackendDown, Warning, "frontend", "an indexer does not answer, and lookups may lack what it has",
		"start it again, or take it out of the pool"},
	{NoQuorum, Critical, "frontend", "half of the indexers or more do not answer, and /health is 503",
		"look at the network between frontend and indexers, then at the indexers"},
	{FilterBehind, Info, "frontend", "indexers are asked in every lookup, as their keys are not followed",
		"wait until they are read; after an hour look at the log, --index-secret and --filter-memory"},
	{AssignerSilent, Warning, "frontend", "the assigner does not say who is in the pool, and what was known before is used",
		"look at the assigner and at --assigner"},
	{ClockSkew, Warning, "frontend", "the clocks of this machine and the assigner's differ by more than 30 seconds",
		"have both machines keep time by NTP"},
	{PoolNodeSilent, Warning, "assigner", "indexers of the pool cannot be read",
		"start them again, or take them out: signpost pool remove"},
	{AssignerNoRoom, Critical, "assigner", "publishers have no indexer that takes their content, and none can take them",
		"add an indexer: signpost pool add"},
	{JournalFailed, Critical, "assigner", "the journal of announces cannot be written",
		"look at the disk of --journal"},
	{DrainStuck, Warning, "assigner", "a drained indexer has publishers that no other can take",
		"add an indexer, or end the drain: signpost pool undrain"},
	{StandingBy, Info, "assigner", "this assigner stands by for another",
		"none is needed while the other one answers"},
}

// Definitions returns all codes.
func Definitions() []Definition { return slices.Clone(definitions) }

// Of returns the definition of a code.
func Of(code Code) (Definition, bool) {
	n := slices.IndexFunc(definitions, func(d Definition) bool { return d.Code == code })
	if n < 0 {
		return Definition{}, false
	}
	return definitions[n], true
}
