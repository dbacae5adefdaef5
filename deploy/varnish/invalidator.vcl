# Purging by tag for the target `type: varnish`, with vmod xkey (package varnish-modules).
#
# Include it at the top of your own VCL; Varnish runs its parts before yours of the same name:
#
#     vcl 4.1;
#     include "./invalidator.vcl";
#     backend default { ... }
#
# Your origin names what a response depends on in the header `xkey: product-42 category-7` (space separated).
# The daemon then sends
#
#     PURGE /    xkey-purge: product-42 category-7       removes these objects
#     PURGE /    xkey-softpurge: product-42              makes them stale: served once more within their grace
#     PURGE /    xkey-purge-all: 1                       a ban on everything
#     GET   /.well-known/invalidator                     answers 200 from Varnish itself
#
# and reads the number of objects from the answer's `X-Purged`. All tags must be on ONE header line: only the first
# line of a name is read here, tags on a second one would be lost in silence.
#
# Who may purge: direct connections from the networks below, which must also send the secret in `X-Purge-Secret`
# when the environment of varnishd has a non-empty INVALIDATOR_PURGE_SECRET.

import xkey;
import std;

acl invalidator_networks {
    "localhost";
    "127.0.0.0"/8;
    "::1";
    "10.0.0.0"/8;
    "172.16.0.0"/12;
    "192.168.0.0"/16;
    "fc00::"/7;
}

sub vcl_recv {
    # Nobody but us sets these.
    unset req.http.X-Invalidator-Purged;

    if (req.method == "PURGE") {
        if (client.ip !~ invalidator_networks) {
            return (synth(403, "Not from here"));
        }
        # Varnish has already appended client.ip here: a comma means that somebody else forwarded this request, so
        # client.ip is a proxy (a TLS terminator on this host, say) and tells nothing about the sender.
        if (req.http.X-Forwarded-For ~ ",") {
            return (synth(403, "Not through a proxy"));
        }
        if (std.getenv("INVALIDATOR_PURGE_SECRET") ~ ".") {
            if (req.http.X-Purge-Secret != std.getenv("INVALIDATOR_PURGE_SECRET")) {
                return (synth(401, "Wrong secret"));
            }
        }
        if (req.http.xkey-purge-all) {
            # Objects in flight are not in the cache yet: as with xkey, the daemon's repeat catches those.
            if (!std.ban("obj.status != 0")) {
                return (synth(500, "Ban failed"));
            }
            set req.http.X-Invalidator-Purged = "0";
        } elsif (req.http.xkey-purge) {
            set req.http.X-Invalidator-Purged = xkey.purge(req.http.xkey-purge);
        } elsif (req.http.xkey-softpurge) {
            # TTL 0, grace and keep stay.
            set req.http.X-Invalidator-Purged = xkey.softpurge(req.http.xkey-softpurge);
        } else {
            return (synth(400, "No tags"));
        }
        return (synth(200, "Purged"));
    }

    unset req.http.X-Purge-Secret;
    if (req.url == "/.well-known/invalidator") {
        return (synth(200, "Alive"));
    }
}

sub vcl_deliver {
    # Tags are between the origin and this cache. Remove this line when another cache in front reads them too.
    unset resp.http.xkey;
}

sub vcl_synth {
    if (req.method == "PURGE" || req.url == "/.well-known/invalidator") {
        if (req.http.X-Invalidator-Purged) {
            set resp.http.X-Purged = req.http.X-Invalidator-Purged;
        }
        set resp.http.Content-Type = "text/plain; charset=utf-8";
        synthetic(resp.reason + {"
"});
        return (deliver);
    }
}
