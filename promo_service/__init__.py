"""A promo code service on MongoDB that neither oversells a code nor applies it twice."""
