//! A sample is thinned traffic: limits that the whole met, a share of it meets only where they are smaller by as much.

use std::sync::Arc;

use pointsman_core::journal::{Setup, Terms};
use pointsman_core::table::{Backend, Limits, Table};

/// The setup with the limits that this share of the traffic meets; 1 or more leaves it as it is.
pub(super) fn thinned(setup: &Arc<Setup>, share: f64) -> Arc<Setup> {
    if share >= 1.0 {
        return setup.clone();
    }
    let backend = |b: &Backend| {
        let of_models = b.model_limits.iter().map(|(model, of_model)| (model.clone(), limits(*of_model, share)));
        Backend { limits: limits(b.limits, share), model_limits: of_models.collect(), ..b.clone() }
    };
    let client = |c: &Terms| Terms {
        limits: limits(c.limits, share),
        budget_usd_per_day: c.budget_usd_per_day.map(|usd| usd * share),
        ..c.clone()
    };
    let mut fleet = setup.fleet;
    fleet.queue_length = (fleet.queue_length as f64 * share).ceil() as usize;
    let backends = setup.table.backends.iter().map(backend).collect();
    Arc::new(Setup {
        table: Table { backends, ..setup.table.clone() },
        clients: setup.clients.iter().map(client).collect(),
        fleet,
        ..(**setup).clone()
    })
}

/// At least 1 of each.
fn limits(limits: Limits, share: f64) -> Limits {
    let of = |limit: Option<u32>| limit.map(|n| ((f64::from(n) * share).round() as u32).max(1));
    Limits {
        rpm: of(limits.rpm),
        burst: of(limits.burst),
        tpm: of(limits.tpm),
        max_concurrency: of(limits.max_concurrency),
        rpd: of(limits.rpd),
        tpd: of(limits.tpd),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_config as config;

    #[test]
    fn a_tenth_of_the_traffic_meets_a_tenth_of_the_limits() {
        let text = "[[backend]]\nid = \"a\"\nbase_url = \"http://x\"\nrpm = 40\nmax_concurrency = 4\n\
                    [[client]]\nname = \"c\"\nkey = \"env:K\"\nbudget_usd_per_day = 5.0\n";
        let setup = Arc::new(config::parse(text, "p.toml", &[("K", "k")]).unwrap().config.setup());
        let tenth = thinned(&setup, 0.1);
        let of = &tenth.table.backends[0].limits;
        assert_eq!((of.rpm, of.tpm, of.max_concurrency), (Some(4), None, Some(1)));
        assert_eq!(tenth.clients[0].budget_usd_per_day, Some(0.5));
        assert!(Arc::ptr_eq(&thinned(&setup, 1.0), &setup));
    }
}
