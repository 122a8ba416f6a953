//! The subscribers: an address each (IPv4) or a /56 each (IPv6), so many of
//! whom have opted out, here and there among the others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use ipnet::IpNet;

use super::{
    Family,
    lists::{from_number, inside, number_of},
};
use crate::traffic::Random;

/// Subscribers in each family: room for a million who consent and a million who
/// do not.
const COUNT: u32 = 1 << 21;
/// How many of those who consent have traffic.
const ACTIVE: usize = 1_000_000;

/// The subscribers of one family.
#[derive(Clone, Debug)]
pub struct Population {
    family: Family,
    /// Numbers of those who opted out.
    opted_out: Vec<u32>,
    /// Numbers of those who consent and have traffic.
    consenting: Vec<u32>,
}

impl Population {
    /// With so many opt-outs.
    ///
    /// # Errors
    /// So many that nobody is left.
    pub fn new(family: Family, opt_outs: usize, random: &mut Random) -> Result<Self> {
        let mut numbers: Vec<u32> = (0..COUNT).collect();
        ensure!(opt_outs < numbers.len(), "{opt_outs} of {COUNT} opted out");
        for place in 0..numbers.len() {
            let with = random.within(place as u64, u64::from(COUNT)) as usize;
            numbers.swap(place, with);
        }
        let consenting = numbers[opt_outs..].iter().copied().take(ACTIVE).collect();
        numbers.truncate(opt_outs);
        Ok(Self {
            family,
            opted_out: numbers,
            consenting,
        })
    }

    /// The subscriber space of a family.
    ///
    /// # Errors
    /// None for the families there are.
    pub fn space(family: Family) -> Result<IpNet> {
        let address: IpAddr = match family {
            Family::V4 => Ipv4Addr::new(100, 64, 0, 0).into(),
            Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0).into(),
        };
        let own_bits = COUNT.trailing_zeros() as u8;
        let before = match family {
            Family::V4 => 32,
            Family::V6 => 56,
        };
        Ok(IpNet::new(address, before - own_bits)?)
    }

    /// The prefixes of those who opted out.
    ///
    /// # Errors
    /// None for the families there are.
    pub fn opt_outs(&self) -> Result<Vec<IpNet>> {
        self.opted_out
            .iter()
            .map(|number| self.prefix(*number))
            .collect()
    }

    /// A random address of somebody who consents.
    ///
    /// # Errors
    /// None for the families there are.
    pub fn consenting(&self, random: &mut Random) -> Result<IpAddr> {
        Ok(inside(self.prefix(*random.of(&self.consenting))?, random))
    }

    /// A random address of somebody who opted out.
    ///
    /// # Errors
    /// Nobody did.
    pub fn opted_out(&self, random: &mut Random) -> Result<IpAddr> {
        ensure!(!self.opted_out.is_empty(), "nobody opted out");
        Ok(inside(self.prefix(*random.of(&self.opted_out))?, random))
    }

    fn prefix(&self, number: u32) -> Result<IpNet> {
        let base = number_of(Self::space(self.family)?.addr());
        let (own_bits, length) = match self.family {
            Family::V4 => (0, 32),
            Family::V6 => (72, 56),
        };
        let address = from_number(self.family, base + (u128::from(number) << own_bits));
        Ok(IpNet::new(address, length)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::lists::Covered;

    #[test]
    fn who_consents_has_not_opted_out() {
        for family in Family::ALL {
            let mut random = Random::new(4);
            let population = Population::new(family, 1_000, &mut random).unwrap();
            let space = Population::space(family).unwrap();
            let out = population.opt_outs().unwrap();
            assert_eq!(out.len(), 1_000);
            assert!(out.iter().all(|prefix| space.contains(prefix)));
            let covered = Covered::by(&out);
            for _ in 0..2_000 {
                let consents = population.consenting(&mut random).unwrap();
                assert!(space.contains(&consents));
                assert!(!covered.contains(consents));
                assert!(covered.contains(population.opted_out(&mut random).unwrap()));
            }
        }
    }
}
